"""Makes beam_search.npz: what the beam search of transformers finds, by torch.

    python tests/golden/make_beam_search.py

Needs torch and transformers. The scores of the next word depend on the two last words
and on the place, and are drawn by `tables`, here and in the tests: the model is there
to be searched through, and what it says is replaced. Of the 2 K best continuations all
may be the end of a sentence, as in tensor2tensor; transformers lets the K best alone.
"""

import pathlib

import numpy as np

EXAMPLES, WORDS, LENGTH = 5, 11, 9
START, END = 1, 2
BEAMS = (2, 4)
ALPHAS = (0.0, 0.6, 1.0)  # of the penalty n^alpha


def tables():
    """Logits [B, L, V, V] by example, place and last word; the last place ends all.

    Half of those by the word before the last are to be added, 0 before the first.
    """
    logits = 2 * np.random.default_rng(5).normal(size=(EXAMPLES, LENGTH, WORDS, WORDS))
    logits[:, -1, :, END] = 40
    return logits.astype(np.float32)


def main():
    import torch
    import transformers

    class Model(transformers.GPT2LMHeadModel):
        def _update_finished_beams(self, *, top_num_beam_mask, **more):
            every = torch.ones_like(top_num_beam_mask)
            return super()._update_finished_beams(top_num_beam_mask=every, **more)

    made = tables()
    model = Model(
        transformers.GPT2Config(
            vocab_size=WORDS, n_positions=16, n_embd=8, n_layer=1, n_head=1
        )
    ).eval()
    found = {}
    for beams in BEAMS:
        for alpha in ALPHAS:
            tokens = np.zeros((EXAMPLES, beams, LENGTH), np.int64)
            scores = np.zeros((EXAMPLES, beams), np.float32)
            for i, table in enumerate(torch.tensor(made)):

                def replace(ids, _, table=table):
                    here = table[ids.shape[1] - 1]
                    before = ids[:, -2] if ids.shape[1] > 1 else 0 * ids[:, -1]
                    return torch.log_softmax(here[ids[:, -1]] + here[before] / 2, -1)

                out = model.generate(
                    torch.full((1, 1), START),
                    attention_mask=torch.ones((1, 1), dtype=torch.long),
                    logits_processor=transformers.LogitsProcessorList([replace]),
                    num_beams=beams,
                    num_return_sequences=beams,
                    length_penalty=alpha,
                    early_stopping="never",
                    max_new_tokens=LENGTH,
                    do_sample=False,
                    eos_token_id=END,
                    pad_token_id=0,
                    return_dict_in_generate=True,
                    output_scores=True,
                )
                for k, said in enumerate(out.sequences[:, 1:].tolist()):
                    said = said[: said.index(END) + 1]
                    tokens[i, k, : len(said)] = said
                scores[i] = out.sequences_scores.numpy()
            found[f"{beams}/{alpha}/tokens"] = tokens
            found[f"{beams}/{alpha}/scores"] = scores
    path = pathlib.Path(__file__).with_name("beam_search.npz")
    np.savez_compressed(path, **found)


if __name__ == "__main__":
    main()

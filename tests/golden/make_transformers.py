"""Makes transformers.npz: outputs of tiny networks of transformers, in float64.

    python tests/golden/make_transformers.py

Needs torch and transformers. Weights and words are not stored: `draw` makes each array
from its name, here and in the tests; names and shapes of the state dicts are stored.
"""

import pathlib
import zlib

import numpy as np

BERT = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 11,
    "type_vocab_size": 2,
}
MARIAN = {
    "vocab_size": 29,
    "decoder_vocab_size": 29,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 16,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
# Class in transformers, its configuration.
CASES = {
    "bert": ("BertModel", BERT),
    "bert_pretraining": ("BertForPreTraining", BERT),
    "bert_classes": ("BertForSequenceClassification", {**BERT, "num_labels": 5}),
    "marian": ("MarianMTModel", MARIAN),
}
LENGTHS = (9, 5, 7)  # of three sentences
TARGETS = (4, 7, 6)


def draw(name, shape):
    """An array for a name, of about the size that a trained network has there."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1 and name.endswith("weight"):  # of a norm
        return rng.uniform(0.5, 1.5, shape)
    if "embed" in name or name == "model.shared.weight":
        return 0.5 * rng.normal(size=shape)
    width = shape[1] ** -0.5 if len(shape) == 2 and "bias" not in name else 0.3
    return 1.4 * width * rng.normal(size=shape)


def words(seed, lengths, vocabulary):
    """Sentences as words [3, T] and a mask of them; padding is any word."""
    rng = np.random.default_rng(seed)
    shape = (len(lengths), max(lengths))
    mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    return rng.integers(3, vocabulary, shape), mask


def bert_batch():
    """Words, their mask, segments 0 and 1, and places whose words are to be told."""
    tokens, mask = words(0, LENGTHS, BERT["vocab_size"])
    segments = (np.arange(tokens.shape[1]) >= 3) & mask
    places = np.array([[1, 8, 4], [0, 4, 2], [6, 3, 3]])
    return tokens, mask, segments.astype(int), places


def outputs(model, torch):
    """What a model makes of the batch, by name."""
    if model.config.model_type == "marian":
        source, source_mask = words(0, LENGTHS, MARIAN["vocab_size"])
        target, _ = words(1, TARGETS, MARIAN["vocab_size"])
        found = model(
            input_ids=torch.tensor(source),
            attention_mask=torch.tensor(source_mask),
            decoder_input_ids=torch.tensor(target),
        )
        return {"logits": found.logits, "memory": found.encoder_last_hidden_state}
    tokens, mask, segments, places = bert_batch()
    found = model(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(mask),
        token_type_ids=torch.tensor(segments),
        output_hidden_states=True,
    )
    if "pooler_output" in found:
        return {"hidden": found.last_hidden_state, "pooled": found.pooler_output}
    if "logits" in found:
        return {"logits": found.logits}
    rows = torch.arange(len(places))[:, None]
    masked = found.prediction_logits[rows, torch.tensor(places)]
    return {
        "masked": masked,
        "is_next": found.seq_relationship_logits,
        "hidden": found.hidden_states[-1],
    }


def main():
    import torch
    import transformers

    torch.set_default_dtype(torch.float64)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    arrays = {"versions": np.array(versions)}
    for case, (kind, settings) in CASES.items():
        made = getattr(transformers, kind)
        model = made(made.config_class(**settings)).eval()
        # what is tied is stored under one name, as in a file
        tied = set(model.all_tied_weights_keys)
        state = {
            name: torch.tensor(draw(name, tuple(value.shape)))
            for name, value in model.state_dict().items()
            if name not in tied and "embed_positions" not in name
        }
        missing, unknown = model.load_state_dict(state, strict=False)
        assert not unknown, unknown
        assert all(n in tied or "embed_positions" in n for n in missing), missing
        model.tie_weights()
        with torch.no_grad():
            for name, value in outputs(model, torch).items():
                arrays[f"{case}/{name}"] = value.numpy()
        arrays[f"{case}/names"] = np.array(list(state))
        arrays[f"{case}/shapes"] = np.array(
            ["x".join(map(str, value.shape)) for value in state.values()]
        )
    path = pathlib.Path(__file__).with_name("transformers.npz")
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()

"""The Transformer, training and decoding, beside `torch.nn.Transformer`.

    python -m benchmarks.transformer --torch_python=PATH    # a Python that has torch
    python -m benchmarks.transformer --only=small

Tokens of the target a second: of a training step (forward, backward, Adam, dropout of
0.1, in float32 and on the same cores), and of beam search with 4 beams. PyTorch has no
search of its own; its side decodes as a plain loop over the whole prefix does, without
a cache and without sorting beams, which is less work than a search. Runs take turns,
one of each side after the other; the ratio is the median of the ratios of the turns.
"""

import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from attn import decoding, models
from attn.models.transformer import SIZES
from benchmarks.torch_process import Torch

# Width, layers, heads and hidden width are those of `size`; vocabulary, examples of a
# batch, and tokens on each side in training and in decoding.
FORMS = {
    "small": ("small", 2000, 32, 48, 32),
    "base": ("base", 8000, 16, 32, 32),
}
DROPOUT, BEAMS = 0.1, 4
# Runs as a process of its own: answers each line with the seconds of one run.
TORCH = """
import sys, time
import torch
torch.set_num_threads(int(sys.argv[1]))
width, depth, heads, hidden, words, batch, length, said = map(int, sys.argv[2:10])
rate, beams = float(sys.argv[10]), int(sys.argv[11])
print("ready", torch.__version__, flush=True)

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(words, width)
        self.inner = torch.nn.Transformer(
            width, heads, depth, depth, hidden, rate, batch_first=True)
        self.drop = torch.nn.Dropout(rate)
    def embed(self, x):
        return self.drop(self.table(x) * width**0.5)
    def decode(self, memory, x):
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        y = self.inner.decoder(
            self.embed(x), memory, tgt_mask=mask, tgt_is_causal=True)
        return y @ self.table.weight.T
    def forward(self, source, x):
        return self.decode(self.inner.encoder(self.embed(source)), x)

model = Model()
optimizer = torch.optim.Adam(model.parameters(), 1e-4)
draw = lambda *shape: torch.randint(3, words, shape)
source, x, y = draw(batch, length), draw(batch, length), draw(batch, length)

def train():
    model.train()
    optimizer.zero_grad()
    logits = model(source, x).reshape(-1, words)
    torch.nn.functional.cross_entropy(logits, y.reshape(-1)).backward()
    optimizer.step()

@torch.no_grad()
def decode():
    model.eval()
    memory = model.inner.encoder(model.embed(source[:, :said]))
    memory = memory.repeat_interleave(beams, 0)
    so_far = torch.ones(batch * beams, 1, dtype=torch.long)
    for _ in range(said):
        words = model.decode(memory, so_far)[:, -1].argmax(-1)
        so_far = torch.cat([so_far, words[:, None]], 1)

for line in sys.stdin:
    began = time.perf_counter()
    {"train": train, "decode": decode}[line.strip()]()
    print(time.perf_counter() - began, flush=True)
"""

flags.DEFINE_integer("rounds", 7, "Runs of each side; the median counts.")
flags.DEFINE_string("torch_python", sys.executable, "A Python that imports torch.")
flags.DEFINE_list("only", [], "Forms to measure; all if empty.")
FLAGS = flags.FLAGS


def ours(form: str):
    """A training step and a search, as functions that wait for their results."""
    size, words, batch, length, said = FORMS[form]
    model = models.create(
        "transformer",
        size=size,
        vocab_size=words,
        max_length=max(length, said),
        dropout=DROPOUT,
    )
    rng = np.random.default_rng(0)
    source, x, y = (jnp.asarray(rng.integers(3, words, (batch, length))) for _ in "sxy")
    mask = jnp.ones((batch, length), bool)
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(jax.random.key(0), source, mask, x)["params"]
    rule = optax.adam(1e-4)

    def step(carried, key):
        params, state = carried

        def loss(params):
            logits = model.apply(
                {"params": params}, source, mask, x, train=True, rngs={"dropout": key}
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean()

        updates, state = rule.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    def search(params):
        # no word ends a sentence, so that each has all of its tokens
        return decoding.generate(
            model,
            {"params": params},
            (source[:, :said], mask[:, :said]),
            start=1,
            end=words,
            length=said,
            beams=BEAMS,
        )

    step, search = jax.jit(step), jax.jit(search)
    carried = params, rule.init(params)
    return {
        "train": lambda: jax.block_until_ready(step(carried, jax.random.key(1))),
        "decode": lambda: jax.block_until_ready(search(params)),
    }, {"train": batch * length, "decode": batch * said}


def torch_of(form: str) -> Torch:
    """PyTorch with the same network and batch."""
    size, *rest = FORMS[form]
    return Torch(FLAGS.torch_python, TORCH, *SIZES[size][:4], *rest, DROPOUT, BEAMS)


def seconds(run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main(argv: list[str]) -> None:
    del argv
    for form in FLAGS.only or FORMS:
        runs, tokens = ours(form)
        torch = torch_of(form)
        if not torch.note:
            raise SystemExit(f"{FLAGS.torch_python} cannot import torch")
        for what, run in runs.items():
            run()
            torch.seconds(what)
            pairs = [(seconds(run), torch.seconds(what)) for _ in range(FLAGS.rounds)]
            own, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(other / mine for mine, other in pairs)
            print(
                f"{form}, {what}: attn {tokens[what] / own:,.0f} tokens/s, torch"
                f" {tokens[what] / theirs:,.0f}; {ratio:.2f} times as many",
                flush=True,
            )
        torch.close()


if __name__ == "__main__":
    app.run(main)

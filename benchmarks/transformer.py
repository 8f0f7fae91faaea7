"""The Transformer, training and decoding, beside `torch.nn.Transformer`.

    python -m benchmarks.transformer --torch_python=PATH    # a Python that has torch
    python -m benchmarks.transformer --only=small

Tokens of the target a second: of a training step (forward, backward, Adam, dropout of
0.1, in float32 and on the same cores), and of beam search with 4 beams. PyTorch has no
search of its own; its side decodes

    whole         as a plain loop over the whole prefix does, without a cache and
                  without sorting beams, which is less work than a search
    cached        by a search written for it here: keys and values of what is decided
                  and of the memory are kept, the best 4 of 4 V sums go on, and the
                  cache follows them; nothing ends early, so no end is looked for
    transformers  by `generate` of a Marian model of the same size, where the package
                  transformers is there, with a cache too

Runs take turns, one of each side after the other; the ratio is the median of the ratios
of the turns.
"""

import functools
import math
import statistics
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from attn import decoding, models
from attn.models.transformer import SIZES
from benchmarks.torch_process import Torch
from benchmarks.watch import Watch

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

def project(x, attention, first, last):
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    rows = slice(first * width, last * width)
    y = torch.nn.functional.linear(x, weight[rows], bias[rows])
    y = y.unflatten(-1, (last - first, heads, width // heads))
    return y.permute(2, 0, 3, 1, 4)

def attend(attention, q, k, v):
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return attention.out_proj(y.transpose(1, 2).flatten(2))

def kept(memory, rows):
    empty = lambda: torch.zeros(2, rows, heads, said, width // heads)
    layers = model.inner.decoder.layers
    return [(empty(), project(memory, one.multihead_attn, 1, 3)) for one in layers]

def step(words, place, caches):
    x = model.embed(words)[:, None]
    for layer, (own, (keys, values)) in zip(model.inner.decoder.layers, caches):
        q, *new = project(x, layer.self_attn, 0, 3)
        for cache, one in zip(own, new):
            cache[:, :, place] = one[:, :, 0]
        read = attend(layer.self_attn, q, *own[:, :, :, :place + 1])
        x = layer.norm1(x + read)
        (q,) = project(x, layer.multihead_attn, 0, 1)
        x = layer.norm2(x + attend(layer.multihead_attn, q, keys, values))
        x = layer.norm3(x + layer.linear2(torch.relu(layer.linear1(x))))
    return model.inner.decoder.norm(x)[:, 0] @ model.table.weight.T

@torch.no_grad()
def cached():
    model.eval()
    memory = model.inner.encoder(model.embed(source[:, :said]))
    caches = kept(memory.repeat_interleave(beams, 0), batch * beams)
    last = torch.ones(batch * beams, dtype=torch.long)
    said_so_far = last[:, None]
    scores = torch.full((batch, beams), -1e9)
    scores[:, 0] = 0
    first = beams * torch.arange(batch)[:, None]
    for place in range(said):
        logits = step(last, place, caches).log_softmax(-1).view(batch, beams, words)
        sums = (scores[:, :, None] + logits).flatten(1)
        scores, best = sums.topk(beams)
        of = (first + best // words).flatten()
        last = (best % words).flatten()
        said_so_far = torch.cat([said_so_far[of], last[:, None]], 1)
        caches = [(own[:, of], memory) for own, memory in caches]

@torch.no_grad()
def check():
    model.eval()
    memory = model.inner.encoder(model.embed(source[:, :said]))
    whole, caches = model.decode(memory, x[:, :said]), kept(memory, batch)
    for place in range(said):
        one = step(x[:, place], place, caches)
        assert torch.allclose(one, whole[:, place], atol=1e-2), place

def marian():
    from transformers import MarianConfig, MarianMTModel
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder")
             for name, value in (("layers", depth), ("attention_heads", heads),
                                 ("ffn_dim", hidden))}
    config = MarianConfig(
        vocab_size=words, d_model=width, activation_function="relu", dropout=rate,
        scale_embedding=True, max_position_embeddings=length + said + 2,
        pad_token_id=0, decoder_start_token_id=1, eos_token_id=2,
        forced_eos_token_id=None, **sizes)
    return MarianMTModel(config).eval()

@torch.no_grad()
def generate():
    other.generate(source[:, :said], num_beams=beams, do_sample=False, use_cache=True,
                   min_new_tokens=said, max_new_tokens=said, length_penalty=0.6)

check()
try:
    other = marian()
except ImportError:
    other = None
    generate = None
runs = {"train": train, "whole": decode, "cached": cached, "transformers": generate}
for line in sys.stdin:
    run = runs[line.strip()]
    if run is None:
        print("nan", flush=True)
        continue
    began = time.perf_counter()
    run()
    print(time.perf_counter() - began, flush=True)
"""
# What PyTorch does beside each of our runs.
PEERS = {"train": ("train",), "decode": ("whole", "cached", "transformers")}

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
    with Watch() as watch:
        measure(watch)


def measure(watch: Watch) -> None:
    """Prints each form that was asked for."""
    for form in FLAGS.only or FORMS:
        runs, tokens = ours(form)
        torch = torch_of(form)
        if not torch.note:
            raise SystemExit(f"{FLAGS.torch_python} cannot import torch")
        for what, run in runs.items():
            compare(f"{form}, {what}", run, PEERS[what], torch, tokens[what], watch)
        torch.close()


def compare(
    name: str, run, peers: Sequence[str], torch: Torch, tokens: int, watch: Watch
) -> None:
    """Prints tokens a second of a run, and of each peer that takes turns with it."""
    run()
    peers = [peer for peer in peers if not math.isnan(torch.seconds(peer))]
    turns, mark = watch.rounds(
        FLAGS.rounds,
        lambda: (seconds(run), *(torch.seconds(peer) for peer in peers)),
    )
    own, *theirs = (statistics.median(side) for side in zip(*turns, strict=True))
    print(f"{name}: attn {tokens / own:,.0f} tokens/s{mark}", flush=True)
    for place, (peer, median) in enumerate(zip(peers, theirs, strict=True), start=1):
        ratio = statistics.median(turn[place] / turn[0] for turn in turns)
        print(
            f"  torch, {peer}: {tokens / median:,.0f}; attn {ratio:.2f} times as many",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)

"""Local attention against attention of all to all, where there are very many tokens.

    python -m benchmarks.local                                      # for a GPU
    python -m benchmarks.local --side=64 --window=20 --dtype=float32

The tokens are those of a square map. The ways, forward, and forward and backward:

    dense          all see all, `attn.ops.dot_product_attention`
    windows        those of the same window see each other, of which the map has a grid
    neighborhood   each sees the window around it, `attn.ops.neighborhood_attention`
    mask function  each sees as far as half a window; `mask_mod` of the dense function

Times are medians of runs in turn, ratios medians of those within a turn; the share of
the matrix peak of the same run counts 4 N D for each pair that is seen, in windows what
fills them up too, and 3.5 times that for both passes. A way that needs more memory than
there is says so.
"""

import functools
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from attn.ops import dot_product_attention, masks
from attn.ops.neighborhood import neighborhood_attention
from attn.ops.window import merge_windows, padded_grid, partition_windows
from benchmarks.watch import Watch

flags.DEFINE_integer("rounds", 5, "Runs of each way; the median counts.")
flags.DEFINE_integer("side", 256, "Height and width of the map.")
flags.DEFINE_integer("window", 80, "Height and width of a window.")
flags.DEFINE_integer("heads", 8, "Heads.")
flags.DEFINE_integer("channels", 64, "Channels of a head.")
flags.DEFINE_string("dtype", "bfloat16", "Type of queries, keys and values.")
FLAGS = flags.FLAGS
DENSE = "dense"


def ways() -> dict[str, tuple[Callable, float]]:
    """Functions of (q, k, v) [1, H, W, N, D] by name, and how many each token sees."""
    side, window = FLAGS.side, FLAGS.window
    whole = padded_grid((side, side), (window, window))[0]
    reach = window // 2
    seen = np.abs(np.subtract.outer(np.arange(side), np.arange(side))) <= reach
    mask = masks.neighborhood(side, reach, reach)
    around = functools.partial(neighborhood_attention, window=(window, window))
    return {
        DENSE: (all_to_all, side**2),
        "windows": (of_windows, window**2 * (whole / side) ** 2),
        "neighborhood": (around, window**2),
        "mask function": (
            functools.partial(all_to_all, mask_mod=mask),
            float(seen.sum(axis=1).mean()) ** 2,
        ),
    }


def all_to_all(*qkv: jax.Array, **options) -> jax.Array:
    """Attention of the map as one row of tokens."""
    rows = (x.reshape(1, -1, *x.shape[3:]) for x in qkv)
    return dot_product_attention(*rows, **options).reshape(qkv[0].shape)


def of_windows(*qkv: jax.Array) -> jax.Array:
    """Attention inside of windows; those at the edges are filled with zeros."""
    _, *grid, heads, channels = qkv[0].shape
    window = (FLAGS.window, FLAGS.window)
    cut = (partition_windows(x.reshape(1, *grid, -1), window)[0] for x in qkv)
    y = dot_product_attention(*(x.reshape(*x.shape[:2], heads, channels) for x in cut))
    y = merge_windows(y.reshape(1, *y.shape[:2], -1), tuple(grid), window)
    return y.reshape(qkv[0].shape)


def compiled(attend: Callable, both: bool, arguments: tuple[jax.Array, ...]):
    """The function of (q, k, v, dy); None where it needs too much memory."""

    def run(q, k, v, dy):
        if not both:
            return attend(q, k, v)
        y, back = jax.vjp(attend, q, k, v)
        return y, back(dy)

    function = jax.jit(run).lower(*arguments).compile()
    try:
        jax.block_until_ready(function(*arguments))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    return function


def measure(both: bool, watch: Watch) -> None:
    """Prints a row for each way."""
    rng = np.random.default_rng(0)
    shape = (1, FLAGS.side, FLAGS.side, FLAGS.heads, FLAGS.channels)
    arguments = tuple(jnp.asarray(rng.normal(size=shape), FLAGS.dtype) for _ in "qkvd")
    known = ways()
    made = {name: compiled(way, both, arguments) for name, (way, _) in known.items()}
    run = {name: function for name, function in made.items() if function is not None}

    def turn() -> dict[str, float]:
        seconds = {}
        for name, function in run.items():
            began = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            seconds[name] = time.perf_counter() - began
        return seconds

    turns, mark = watch.rounds(FLAGS.rounds, turn)
    for name, (_, sees) in known.items():
        cells = "out of memory | - | - | -"
        if name in run:
            middle = statistics.median(one[name] for one in turns)
            flops = 4 * FLAGS.side**2 * sees * FLAGS.heads * FLAGS.channels
            flops *= 3.5 if both else 1
            ratio = "-"
            if DENSE in run:
                ratios = (one[DENSE] / one[name] for one in turns)
                ratio = f"{statistics.median(ratios):.2f}"
            memory = run[name].memory_analysis().temp_size_in_bytes / 2**20
            cells = (
                f"{middle * 1e3:.2f}{mark} | {watch.share(flops, middle)} | {ratio} |"
                f" {memory:,.0f}"
            )
        print(f"| {name} | {'both' if both else 'forward'} | {cells} |", flush=True)


def main(argv: list[str]) -> None:
    del argv
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {FLAGS.dtype}, jax"
        f" {jax.__version__}; {FLAGS.side**2:,} tokens, {FLAGS.heads} heads of"
        f" {FLAGS.channels} channels, windows of {FLAGS.window}x{FLAGS.window};"
        f" {FLAGS.rounds} rounds"
    )
    with Watch(FLAGS.dtype) as watch:
        print(
            "| way | pass | ms | of the peak | x as fast as dense | peak MiB |\n"
            "|---|---|---|---|---|---|"
        )
        for both in (False, True):
            measure(both, watch)


if __name__ == "__main__":
    app.run(main)

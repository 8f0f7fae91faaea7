"""A mask as a function against the same mask as an array, and against none.

    python -m benchmarks.masks
    python -m benchmarks.masks --rounds=9 --length=16384

All are `attn.ops.dot_product_attention`; the array is an argument of the compiled
program. Times are medians of runs in turn, ratios medians of the ratios within a turn.
Peak memory is what XLA says that the program needs beside arguments and results, to
which an array of a mask, itself an argument, comes on top. The share of the matrix peak
of the same run counts 4 N D for each pair that is allowed, 3.5 times that for both.
"""

import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from attn.ops import dot_product_attention, masks
from benchmarks.watch import Watch

flags.DEFINE_integer("rounds", 7, "Runs of each way; the median counts.")
flags.DEFINE_integer("length", 4096, "Targets and sources; a square of a whole number.")
flags.DEFINE_integer("heads", 8, "Heads.")
flags.DEFINE_integer("channels", 64, "Channels of a head.")
FLAGS = flags.FLAGS


def gallery(length: int) -> dict[str, masks.MaskMod]:
    """Masks that exclude about 90 % of the matrix, and causal ones."""
    side = round(length**0.5)
    reach = length // 20
    rows = np.arange(length)[None] * 10 // length
    return {
        "window": masks.sliding_window(reach, reach),
        "documents": masks.documents(rows),
        "causal documents": masks.every(masks.causal(), masks.documents(rows)),
        "neighborhood": masks.neighborhood(side, side // 6, side // 6),
        "causal": masks.causal(),
    }


def as_array(mask: masks.MaskMod, length: int) -> jax.Array:
    """[T, S]."""
    at = jnp.arange(length)
    return jax.jit(lambda: mask(0, 0, at[:, None], at[None]))()


def compiled(both: bool, arguments: tuple, **options):
    """The function of (q, k, v, dy, array or None)."""

    def run(q, k, v, dy, mask):
        attend = lambda *x: dot_product_attention(*x, mask=mask, **options)
        if not both:
            return attend(q, k, v)
        y, back = jax.vjp(attend, q, k, v)
        return y, back(dy)

    return jax.jit(run).lower(*arguments).compile()


def measure(name: str, mask: masks.MaskMod, both: bool, watch: Watch) -> str:
    """A row of the table."""
    length = FLAGS.length
    rng = np.random.default_rng(0)
    shape = (1, length, FLAGS.heads, FLAGS.channels)
    arrays = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in "qkvd")
    array = as_array(mask, length)
    given = {"function": None, "array": array, "none": None}
    run = {
        way: compiled(both, (*arrays, x), mask_mod=mask if way == "function" else None)
        for way, x in given.items()
    }

    def turn() -> dict[str, float]:
        seconds = {}
        for way, function in run.items():
            began = time.perf_counter()
            jax.block_until_ready(function(*arrays, given[way]))
            seconds[way] = time.perf_counter() - began
        return seconds

    turn()  # warms up
    turns, mark = watch.rounds(FLAGS.rounds, turn)
    ratio = lambda way: statistics.median(t[way] / t["function"] for t in turns)
    middle = statistics.median(t["function"] for t in turns)
    allowed = float(jnp.mean(array))
    flops = 4 * allowed * FLAGS.heads * length**2 * FLAGS.channels
    memory = [run[x].memory_analysis().temp_size_in_bytes / 2**20 for x in given]
    return (
        f"| {name} | {1 - allowed:.1%} | {'both' if both else 'forward'} |"
        f" {middle * 1e3:.1f}{mark} |"
        f" {watch.share(flops * (3.5 if both else 1), middle)} |"
        f" {ratio('array'):.2f} | {ratio('none'):.2f} | {memory[0]:.1f} |"
        f" {memory[1] + array.nbytes / 2**20:.1f} |"
    )


def main(argv: list[str]) -> None:
    del argv
    shape = (1, FLAGS.heads, FLAGS.length, FLAGS.channels)
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax"
        f" {jax.__version__}; (B, N, T, D) = {shape}; {FLAGS.rounds} rounds"
    )
    with Watch() as watch:
        print(
            "| mask | excluded | pass | ms | of the peak | x array | x no mask | MiB |"
            " MiB, array |\n|---|---|---|---|---|---|---|---|---|"
        )
        for name, mask in gallery(FLAGS.length).items():
            for both in (False, True):
                print(measure(name, mask, both, watch), flush=True)


if __name__ == "__main__":
    app.run(main)

"""Programs of a convolution and of pooling against each other, forward and backward.

    python -m benchmarks.convolution           # times of XLA's over the others
    python -m benchmarks.convolution --sweep   # of more shapes

In turn, medians; above 1 XLA's own is slower.
"""

import statistics
import time

import flax.linen as nn
import jax
from absl import app, flags

from attn.ops import banded, convolution, im2col
from benchmarks.watch import Watch

SWEEP = flags.DEFINE_bool("sweep", False, "Many shapes, for the rule.")
ROUNDS = flags.DEFINE_integer("rounds", 15, "Rounds of each measurement.")
# Map, channels, kernel, filters and padding: the gate of CBAM, layers of the
# spatial-transformer paper on 28x28 pixels, and a 3x3 layer.
LAYERS = [
    (32, 2, 7, 1, "SAME"),
    (16, 2, 7, 1, "SAME"),
    (8, 2, 7, 1, "SAME"),
    (28, 1, 9, 32, "VALID"),
    (10, 32, 7, 64, "VALID"),
    (14, 1, 5, 20, "VALID"),
    (28, 16, 3, 16, "SAME"),
    (18, 15, 3, 15, "SAME"),
    (9, 31, 3, 31, "SAME"),
    (5, 62, 3, 62, "SAME"),
]
MORE = [
    (56, 2, 7, 1, "SAME"),
    (16, 2, 3, 1, "SAME"),
    (28, 1, 3, 16, "SAME"),
    (28, 1, 5, 16, "SAME"),
    (28, 3, 5, 16, "SAME"),
    (28, 4, 7, 4, "SAME"),
    (16, 16, 5, 16, "SAME"),
    (28, 32, 5, 32, "SAME"),
]
POOLED = [(20, 32), (4, 64)]
BATCH = 64


def programs(padding: str):
    """XLA's convolution and the others, as functions of arrays."""

    def xla(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=convolution.DIMENSIONS
        )

    def band(x, kernel):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (1, 1), padding)
        return banded.conv_general_dilated(x, kernel, (1, 1), pads)

    def unfold(x, kernel):
        return im2col.conv_general_dilated(x, kernel, (1, 1), padding)

    def pad(x, kernel):
        return convolution.fused_convolution(
            x, kernel, "padded", (1, 1), padding, None, None
        )

    return xla, band, unfold, pad


def xla_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), (2, 2))


def ratios(watch: Watch, functions, *arrays: jax.Array) -> tuple[list[float], str]:
    """How many times longer the first one takes with its gradients than each other,
    and the mark of the measurement."""
    numbers = tuple(range(len(arrays)))
    steps = [
        jax.jit(jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), numbers))
        for f in functions
    ]
    for step in steps:
        jax.block_until_ready(step(*arrays))

    def turn() -> list[float]:
        seconds = []
        for step in steps:
            began = time.perf_counter()
            jax.block_until_ready(step(*arrays))
            seconds.append(time.perf_counter() - began)
        return [seconds[0] / other for other in seconds[1:]]

    found, mark = watch.rounds(ROUNDS.value, turn)
    return [statistics.median(column) for column in zip(*found, strict=True)], mark


def main(argv: list[str]) -> None:
    del argv
    with Watch() as watch:
        compare(watch)


def compare(watch: Watch) -> None:
    """Prints a line for each shape."""
    keys = jax.random.split(jax.random.key(0), 2)
    for side, channels, size, filters, padding in LAYERS + MORE * SWEEP.value:
        x = jax.random.normal(keys[0], (BATCH, side, side, channels))
        kernel = jax.random.normal(keys[1], (size, size, channels, filters))
        (band, unfold, pad), mark = ratios(watch, programs(padding), x, kernel)
        taken = convolution.program(x.shape, kernel.shape, (1, 1))
        print(
            f"convolution {size}x{size} {padding}, {side}x{side}x{channels} ->"
            f" {filters}: banded {band:.2f}, im2col {unfold:.2f}, padded {pad:.2f};"
            f" taken: {taken}{mark}",
            flush=True,
        )
    for side, channels in POOLED:
        x = jax.random.normal(keys[0], (BATCH, side, side, channels))
        (found,), mark = ratios(watch, (xla_pool, im2col.max_pool), x)
        shape = f"{side}x{side}x{channels}"
        print(f"max pooling 2x2, {shape}: {found:.2f}{mark}", flush=True)


if __name__ == "__main__":
    app.run(main)

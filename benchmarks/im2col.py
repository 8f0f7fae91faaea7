"""Convolution and pooling by slices against XLA's own, forward and backward.

    python -m benchmarks.im2col             # time of XLA's over ours, a line a layer

In turn, medians; above 1 XLA's own is slower.
"""

import statistics
import time

import flax.linen as nn
import jax
from absl import app

from attn.ops import im2col

ROUNDS = 15
# Map, channels, kernel and filters of the layers of the spatial-transformer paper on
# 28x28 pixels, of a 3x3 layer for comparison, and what is pooled between them.
CONVOLUTIONS = [(28, 1, 9, 32), (10, 32, 7, 64), (14, 1, 5, 20), (28, 16, 3, 16)]
POOLED = [(20, 32), (4, 64)]
BATCH = 64


def xla_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=names
    )


def our_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return im2col.conv_general_dilated(x, kernel, (1, 1), "VALID")


def xla_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), (2, 2))


def ratio(theirs, ours, *arrays: jax.Array) -> float:
    """How many times longer `theirs` takes with its gradients, the median."""
    steps = [
        jax.jit(jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), tuple(range(len(arrays)))))
        for f in (theirs, ours)
    ]
    seconds = []
    for step in steps:
        jax.block_until_ready(step(*arrays))
    for _ in range(ROUNDS):
        pair = []
        for step in steps:
            began = time.perf_counter()
            jax.block_until_ready(step(*arrays))
            pair.append(time.perf_counter() - began)
        seconds.append(pair[0] / pair[1])
    return statistics.median(seconds)


def main(argv: list[str]) -> None:
    del argv
    keys = jax.random.split(jax.random.key(0), 2)
    for side, channels, size, filters in CONVOLUTIONS:
        x = jax.random.normal(keys[0], (BATCH, side, side, channels))
        kernel = jax.random.normal(keys[1], (size, size, channels, filters))
        found = ratio(xla_conv, our_conv, x, kernel)
        print(
            f"convolution {size}x{size}, {side}x{side}x{channels} -> {filters}:"
            f" {found:.2f}",
            flush=True,
        )
    for side, channels in POOLED:
        x = jax.random.normal(keys[0], (BATCH, side, side, channels))
        found = ratio(xla_pool, im2col.max_pool, x)
        print(f"max pooling 2x2, {side}x{side}x{channels}: {found:.2f}", flush=True)


if __name__ == "__main__":
    app.run(main)

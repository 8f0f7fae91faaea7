"""Exact attention against what people would otherwise call, forward and backward.

    python -m benchmarks.dot_product
    python -m benchmarks.dot_product --torch_python=PATH    # a Python that has torch
    python -m benchmarks.dot_product --dtype=bfloat16 --only=197,1024

Times are medians of runs in turn, of each peer after the other, so that a noisy machine
meets all of them; ratios are medians of the ratios within a turn. Each run that is
timed follows one of its own, so that nobody pays for what the one before left behind.
PyTorch answers over a pipe, in a process that sleeps while the others run, with as many
threads as there are cores. GFLOP/s count 4 B N T^2 D for the forward pass and 3.5 times
that with the backward pass, for everybody, and stand beside the peak of matrix products
in the same run. Peak memory is what XLA says that the compiled program needs beside its
arguments and results.
"""

import functools
import importlib.util
import os
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import linen as nn

from attn.ops import dot_product
from benchmarks.torch_process import Torch
from benchmarks.watch import Watch

SIZES = ((32, 3, 197, 64), (8, 8, 1024, 64), (1, 8, 4096, 64), (1, 2, 16384, 64))
OURS = "attn"
# Runs as a process of its own: answers each line with the seconds of one run.
TORCH = """
import sys, time
import torch
attend = torch.nn.functional.scaled_dot_product_attention
torch.set_num_threads(int(sys.argv[1]))
dtype = getattr(torch, sys.argv[2])
device = "cuda" if torch.cuda.is_available() else "cpu"
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
print("ready", torch.__version__, flush=True)
made = {}
for line in sys.stdin:
    *sizes, both = map(int, line.split())
    if made.get("sizes") != sizes:
        b, n, t, d = sizes
        made = {"sizes": sizes}
        made["qkv"] = [
            torch.randn(b, t, n, d, dtype=dtype, device=device).transpose(1, 2)
            .contiguous().requires_grad_() for _ in range(3)]
        made["dy"] = torch.randn(b, n, t, d, dtype=dtype, device=device)
    q, k, v = made["qkv"]
    wait()
    began = time.perf_counter()
    if both:
        torch.autograd.grad(attend(q, k, v), (q, k, v), made["dy"])
    else:
        with torch.no_grad():
            attend(q, k, v)
    wait()
    print(time.perf_counter() - began, flush=True)
"""

flags.DEFINE_integer("rounds", 7, "Runs of each peer; the median counts.")
flags.DEFINE_string("torch_python", sys.executable, "A Python that imports torch.")
flags.DEFINE_string("dtype", "float32", "Type of queries, keys and values.")
flags.DEFINE_list("only", [], "Lengths T to measure; all if empty.")
flags.DEFINE_string("implementation", None, "Of our function; None lets it choose.")
FLAGS = flags.FLAGS


def peers(both: bool, arguments: tuple[jax.Array, ...]) -> dict[str, object]:
    """The compiled functions of (q, k, v, dy) by name."""
    ours = functools.partial(
        dot_product.dot_product_attention, implementation=FLAGS.implementation
    )
    functions = {
        OURS: ours,
        "jax.nn": jax.nn.dot_product_attention,
        "flax": nn.dot_product_attention,
    }
    if jax.default_backend() == "gpu" and arguments[0].dtype != jnp.float32:
        functions["cudnn"] = functools.partial(
            jax.nn.dot_product_attention, implementation="cudnn"
        )
        if importlib.util.find_spec("tokamax"):
            functions["tokamax"] = functools.partial(
                dot_product.dot_product_attention, implementation="tokamax"
            )

    def whole(attend):
        def run(q, k, v, dy):
            if not both:
                return attend(q, k, v)
            y, back = jax.vjp(attend, q, k, v)
            return y, back(dy)

        return jax.jit(run).lower(*arguments).compile()

    return {name: whole(attend) for name, attend in functions.items()}


def seconds(function, arguments: tuple[jax.Array, ...]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def second(run) -> float:
    """What the second of two runs in a row took."""
    run()
    return run()


def measure(
    sizes: tuple[int, ...], both: bool, torch: Torch | None, watch: Watch
) -> list[str]:
    """One row of the table for each peer."""
    batch, heads, length, width = sizes
    rng = np.random.default_rng(0)
    shape = (batch, length, heads, width)
    arguments = tuple(jnp.asarray(rng.normal(size=shape), FLAGS.dtype) for _ in "qkvd")
    functions = peers(both, arguments)
    runs = {k: functools.partial(seconds, f, arguments) for k, f in functions.items()}
    if torch is not None:
        runs["torch"] = functools.partial(torch.seconds, *sizes, int(both))
    turns, mark = watch.rounds(
        FLAGS.rounds, lambda: {name: second(run) for name, run in runs.items()}
    )
    times = {name: [turn[name] for turn in turns] for name in runs}
    flops = 4 * batch * heads * length**2 * width * (3.5 if both else 1)
    rows = []
    for name, taken in times.items():
        pairs = zip(taken, times[OURS], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        middle, memory = statistics.median(taken), "-"
        if name in functions:
            analysis = functions[name].memory_analysis()
            memory = f"{analysis.temp_size_in_bytes / 2**20:,.1f}"
        rows.append(
            f"| {sizes} | {'both' if both else 'forward'} | {name} |"
            f" {middle * 1e3:.2f} | {flops / middle / 1e9:,.1f} |"
            f" {watch.share(flops, middle)} | {ratio:.2f}{mark} | {memory} |"
        )
    return rows


def main(argv: list[str]) -> None:
    del argv
    torch = Torch(FLAGS.torch_python, TORCH, FLAGS.dtype)
    device = jax.devices()[0]
    print(
        f"{device.device_kind}, {os.cpu_count()} cores, {FLAGS.dtype}, jax"
        f" {jax.__version__}; {FLAGS.rounds} rounds"
    )
    if not torch.note:
        print(f"torch is left out: {FLAGS.torch_python} cannot import it")
    print(torch.note.replace("ready", "torch"))
    with Watch(FLAGS.dtype) as watch:
        print(
            "| (B, N, T, D) | pass | peer | ms | GFLOP/s | of the peak |"
            " x attn's time | peak MiB |\n|---|---|---|---|---|---|---|---|"
        )
        for sizes in SIZES:
            if FLAGS.only and str(sizes[2]) not in FLAGS.only:
                continue
            for both in (False, True):
                rows = measure(sizes, both, torch if torch.note else None, watch)
                print("\n".join(rows), flush=True)
    torch.close()


if __name__ == "__main__":
    app.run(main)

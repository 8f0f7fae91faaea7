"""What restoration and its second-order attention cost.

    python -m benchmarks.restoration --torch_python=PATH    # a Python with torch
    python -m benchmarks.restoration --only=roots --rounds=9 --sizes=64,256

pan     PAN, fourfold, of one image of 320x180, forward, float32, beside the same
        network of PyTorch on the same cores, that of tests/golden, with which ours
        agrees.
roots   Square roots of covariances: `attn.ops.newton_schulz_sqrt` against
        `jax.numpy.linalg.eigh`, forward, and forward and backward, on batches of 512
        rows or of one matrix. Peak memory is what XLA says that the program needs
        beside its arguments. The error is the distance to the root by eigenvalues, over
        the norm of the latter, for covariances of twice as many positions as channels.

Times are medians of runs in turn, ratios medians of the ratios within a turn.
"""

import functools
import os
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
from absl import app, flags

from attn import models, ops
from attn.models import cost
from benchmarks.torch_process import Torch
from benchmarks.watch import Watch

flags.DEFINE_integer("rounds", 5, "Runs of each way; the median counts.")
SIZES = ["64", "128", "256", "512", "1024", "2048"]
flags.DEFINE_list("sizes", SIZES, "Channels C of the covariances.")
flags.DEFINE_integer("iterations", 5, "Of Newton-Schulz.")
flags.DEFINE_string("torch_python", sys.executable, "A Python that imports torch.")
flags.DEFINE_list("only", ["pan", "roots"], "What to measure.")
FLAGS = flags.FLAGS
ROWS = 512  # of all matrices of a batch
SIZE = (180, 320)  # height and width of the image
PAN = {"scale": 4, "width": 40, "enlarged_width": 24, "depth": 16}
NETWORKS = pathlib.Path(__file__).parents[1] / "tests/golden/make_restoration.py"
# Runs as a process of its own: answers each line with the seconds of one run.
TORCH = f"""
import runpy, sys, time
import torch
torch.set_num_threads(int(sys.argv[1]))
make = runpy.run_path(sys.argv[2])["networks"]
model = make(torch)["pan"](**{PAN}).eval()
print("ready", torch.__version__, flush=True)
image = torch.rand(1, 3, {SIZE[0]}, {SIZE[1]})
for line in sys.stdin:
    began = time.perf_counter()
    with torch.inference_mode():
        model(image)
    print(time.perf_counter() - began, flush=True)
"""


def newton_schulz(a: jax.Array) -> jax.Array:
    return ops.newton_schulz_sqrt(a, iterations=FLAGS.iterations)


def by_eigenvalues(a: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(a)
    roots = jnp.sqrt(jnp.maximum(values, 0))
    exact = {"precision": jax.lax.Precision.HIGHEST}
    return jnp.einsum("bce,be,bde->bcd", vectors, roots, vectors, **exact)


def compiled(root, both: bool, a: jax.Array):
    """The function of covariances, and of what comes back to their roots."""

    def run(a, back):
        if not both:
            return root(a)
        y, pull = jax.vjp(root, a)
        return y, pull(back)

    return jax.jit(run).lower(a, a).compile()


def measure(channels: int, both: bool, watch: Watch) -> str:
    """A row of the table."""
    batch = max(1, ROWS // channels)
    keys = jax.random.split(jax.random.key(0))
    a = ops.covariance_pool(jax.random.normal(keys[0], (batch, 2 * channels, channels)))
    back = jax.random.normal(keys[1], a.shape)
    run = [compiled(root, both, a) for root in (newton_schulz, by_eigenvalues)]

    def turn() -> list[float]:
        row = []
        for function in run:
            began = time.perf_counter()
            jax.block_until_ready(function(a, back))
            row.append(time.perf_counter() - began)
        return row

    turn()  # warms up
    times, mark = watch.rounds(FLAGS.rounds, turn)
    ours, exact = zip(*times, strict=True)
    ratio = statistics.median(b / a for a, b in zip(ours, exact, strict=True))
    memory = [one.memory_analysis().temp_size_in_bytes / 2**20 for one in run]
    error = ""
    if not both:
        found, root = (function(a, back) for function in run)
        error = f"{float(jnp.linalg.norm(found - root) / jnp.linalg.norm(root)):.1e}"
    return (
        f"| {batch} x {channels} | {'both' if both else 'forward'} |"
        f" {statistics.median(ours) * 1e3:.1f} | {ratio:.2f}{mark} |"
        f" {memory[0]:.1f} |"
        f" {memory[1]:.1f} | {error} |"
    )


def pan(watch: Watch) -> None:
    torch = Torch(FLAGS.torch_python, TORCH, NETWORKS)
    if not torch.note:
        raise SystemExit(f"{FLAGS.torch_python} cannot import torch")
    model = models.create("pan", **PAN)
    image = jax.random.uniform(jax.random.key(0), (1, *SIZE, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), image
    )
    forward = jax.jit(functools.partial(model.apply, train=False))

    def turn() -> tuple[float, float]:
        began = time.perf_counter()
        jax.block_until_ready(forward(variables, image))
        return time.perf_counter() - began, torch.seconds()

    turn()  # warms up
    turns, mark = watch.rounds(FLAGS.rounds, turn)
    torch.close()
    ours, theirs = map(statistics.median, zip(*turns, strict=True))
    ratio = statistics.median(b / a for a, b in turns)
    print(
        f"pan: {cost.parameters(variables):,} parameters; attn {ours:.3f} s,"
        f" {torch.note.replace('ready', 'torch')} {theirs:.3f} s; {ratio:.2f} times as"
        f" long{mark}",
        flush=True,
    )


def roots(watch: Watch) -> None:
    print(
        "| matrices | pass | ms | eigen / Newton-Schulz | MiB | MiB, eigen | error |\n"
        "|---|---|---|---|---|---|---|"
    )
    for channels in map(int, FLAGS.sizes):
        for both in (False, True):
            print(measure(channels, both, watch), flush=True)


def main(argv: list[str]) -> None:
    del argv
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax"
        f" {jax.__version__}; {FLAGS.rounds} rounds, {FLAGS.iterations} iterations"
    )
    with Watch() as watch:
        for name in FLAGS.only:
            {"pan": pan, "roots": roots}[name](watch)


if __name__ == "__main__":
    app.run(main)

"""DETR: where a training step goes, and R50-DETR beside that of transformers.

    python -m benchmarks.detr --torch_python=PATH    # a Python with torch, transformers
    python -m benchmarks.detr --only=small           # and timm

small   A training step of a small DETR on `digits_scene` (forward, matching, backward,
        AdamW, clipping), and parts of it, each a program of its own, forward and
        backward but for the assignment: the backbone, the Transformer (network less
        backbone), the loss with all that it does, and of that the assignment of queries
        to objects. The goal for the assignment is 10 % of a step.
r50     DETR of a ResNet-50, 100 queries and 91 classes, forward, float32, batch 2 of
        512x512 with padding masks, beside DetrForObjectDetection on the same cores.

Runs take turns, one of each after the other; shares and the ratio are medians of those
of the turns. Shares by processor time do not count the wait for cores that others use.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax.core import FrozenDict

from attn import data, models
from attn.models.resnet import ResNet
from attn.ops import boxes as geometry
from attn.tasks.detection import Detection
from attn.tasks.matching import match
from attn.train import optimizer
from benchmarks.torch_process import Torch
from benchmarks.watch import Watch

BACKBONE = {"depth": 8, "layout": "cifar", "stem_stride": 2}
SMALL = {
    "backbone": BACKBONE,
    "frozen_norm": False,
    "width": 64,
    "num_heads": 4,
    "encoder_depth": 2,
    "decoder_depth": 2,
    "mlp_dim": 128,
    "num_queries": 10,
}
BATCH = 32  # of the small form
LARGE = (2, 512)  # images and their side
CLASSES = 91
# Runs as a process of its own: answers each line with the seconds of one run.
TORCH = """
import sys, time
import torch
from transformers import DetrConfig, DetrForObjectDetection
torch.set_num_threads(int(sys.argv[1]))
batch, side, classes = map(int, sys.argv[2:5])
model = DetrForObjectDetection(DetrConfig(num_labels=classes)).eval()
print("ready", torch.__version__, flush=True)
images = torch.randn(batch, 3, side, side)
mask = torch.ones(batch, side, side, dtype=torch.long)
mask[1, side * 3 // 4:] = 0
for line in sys.stdin:
    began = time.perf_counter()
    with torch.inference_mode():
        model(pixel_values=images, pixel_mask=mask)
    print(time.perf_counter() - began, flush=True)
"""

flags.DEFINE_integer("rounds", 9, "Runs of each side; the median counts.")
flags.DEFINE_string("torch_python", sys.executable, "A Python that imports torch.")
flags.DEFINE_list("only", ["small", "r50"], "What to measure.")
FLAGS = flags.FLAGS
Run = Callable[[], object]


class Cost(NamedTuple):
    """Seconds of a run, by the clock and of all cores."""

    clock: float
    cores: float


def cost(run: Run) -> Cost:
    began = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return Cost(time.perf_counter() - began[0], time.process_time() - began[1])


def taken(runs: dict[str, Run], watch: Watch) -> tuple[list[dict[str, Cost]], str]:
    """What each costs, in turns, after one run that compiles; and the mark."""
    for run in runs.values():
        jax.block_until_ready(run())
    return watch.rounds(
        FLAGS.rounds, lambda: {name: cost(run) for name, run in runs.items()}
    )


def scenes() -> tuple[dict[str, jax.Array], int]:
    """A batch of scenes, and the number of classes."""
    source = data.open({"name": "digits_scene", "train": "train"})
    with source.train(BATCH, seed=0) as batches:
        batch = next(batches)
    fields = ("image", *Detection.fields)
    return {n: jnp.asarray(batch[n]) for n in fields}, source.facts["num_classes"]


def step_of(model, task, rule):
    """A training step: parameters and the rest, in and out."""

    def step(params, stats, state, batch):
        def loss(params):
            outputs, changed = model.apply(
                {"params": params, "batch_stats": stats},
                batch["image"],
                train=True,
                rngs={"dropout": jax.random.key(1)},
                mutable=["batch_stats"],
            )
            return total(task, outputs, batch), changed["batch_stats"]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        updates, state = rule.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), stats, state

    return jax.jit(step)


def total(task, outputs, batch) -> jax.Array:
    """The loss that a step makes smaller."""
    means = task.loss(outputs, batch)
    return sum(means[n].total.sum() / means[n].weight.sum() for n in task.minimised)


def costs_of(boxes: jax.Array, batch) -> jax.Array:
    """Costs as those of the loss, but for the classes: [B, L, Q, N]."""
    height, width = batch["image"].shape[1:3]
    truth = batch["boxes"] / jnp.array([width, height] * 2, jnp.float32)[None, None]
    truth, found = truth[:, None], geometry.corners(boxes)
    distance = geometry.centred(truth)[:, :, None] - boxes[:, :, :, None]
    overlap = geometry.pairwise_giou(found, truth)
    return 5 * jnp.abs(distance).sum(axis=-1) - 2 * overlap


def small_runs() -> dict[str, Run]:
    """A step of the small form, and its parts."""
    batch, classes = scenes()
    model, task = models.create("detr", num_classes=classes, **SMALL), Detection()
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), batch["image"])
    params, stats = variables["params"], variables["batch_stats"]
    rule = optimizer.create({"name": "adamw", "clip": 0.1}, lambda _: 1e-3)
    step, state = step_of(model, task, rule), rule.init(params)

    def size(module, params, stats):
        outputs, changed = module.apply(
            {"params": params, "batch_stats": stats},
            batch["image"],
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(outputs)), changed

    def gradient(module, params, stats):
        run = jax.jit(jax.grad(functools.partial(size, module), has_aux=True))
        return lambda: run(params, stats)

    resnet = ResNet(num_classes=None, **FrozenDict(BACKBONE))
    outputs = jax.jit(functools.partial(model.apply, train=False))(
        variables, batch["image"]
    )
    costs = jax.jit(costs_of)(outputs["boxes"], batch)
    assign = jax.jit(match)
    of_loss = jax.jit(jax.grad(lambda o: total(task, o, batch)))
    return {
        "step": lambda: step(params, stats, state, batch),
        "backbone": gradient(resnet, params["backbone"], stats["backbone"]),
        "network": gradient(model, params, stats),
        "assignment": lambda: assign(costs, batch["boxes_mask"][:, None]),
        "loss": lambda: of_loss(outputs),
    }


def small(watch: Watch) -> None:
    turns, mark = taken(small_runs(), watch)
    median = statistics.median(turn["step"].clock for turn in turns)
    print(
        f"small: {1000 * median:.1f} ms a training step of {BATCH} scenes{mark}",
        flush=True,
    )
    parts = {
        "backbone": ("backbone", None),
        "transformer": ("network", "backbone"),
        "loss": ("loss", None),
        "assignment": ("assignment", None),
    }
    for name, (whole, less) in parts.items():
        own = [
            Cost(
                *(
                    a - b
                    for a, b in zip(turn[whole], turn.get(less, (0, 0)), strict=True)
                )
            )
            for turn in turns
        ]
        shares = [
            statistics.median(
                100 * part[kind] / turn["step"][kind]
                for part, turn in zip(own, turns, strict=True)
            )
            for kind in range(2)
        ]
        print(
            f"  {name}: {1000 * statistics.median(part.clock for part in own):.2f} ms,"
            f" {shares[0]:.1f} % of a step, {shares[1]:.1f} % by processor time",
            flush=True,
        )


def r50(watch: Watch) -> None:
    count, side = LARGE
    torch = Torch(FLAGS.torch_python, TORCH, count, side, CLASSES)
    if not torch.note:
        raise SystemExit(f"{FLAGS.torch_python} cannot import torch and transformers")
    model = models.create("detr", num_classes=CLASSES, masked=True)
    images = np.random.default_rng(0).normal(size=(count, side, side, 3))
    images = jnp.asarray(images, jnp.float32)
    mask = jnp.ones(images.shape[:3], bool).at[1, side * 3 // 4 :].set(False)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), images, mask)
    forward = jax.jit(functools.partial(model.apply, train=False))
    jax.block_until_ready(forward(variables, images, mask))
    torch.seconds()
    turns, disturbed = watch.rounds(
        FLAGS.rounds,
        lambda: (
            cost(lambda: forward(variables, images, mask)).clock,
            torch.seconds(),
        ),
    )
    torch.close()
    ours, theirs = (statistics.median(side) for side in zip(*turns, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in turns)
    print(
        f"r50: attn {count / ours:.2f} images/s, transformers {count / theirs:.2f};"
        f" attn {ratio:.2f} times as many{disturbed}",
        flush=True,
    )


def main(argv: list[str]) -> None:
    del argv
    with Watch() as watch:
        for name in FLAGS.only:
            {"small": small, "r50": r50}[name](watch)


if __name__ == "__main__":
    app.run(main)

"""What it brings to train points side by side instead of one after the other.

    python -m benchmarks.together               # three small networks, three ways
    python -m benchmarks.together --rounds=3 --networks=vit

Each way trains the same points, of batches of 128 of MNIST's size, and the figure is
its point-steps per second over those of one point alone on one device; all in one
process, in turn, so that a noisy machine meets all; the median of the ratios counts.
The same ratio by processor time tells what the steps cost, whoever else computes.

    split      one point, its batch split over all devices
    devices    one point on each of the devices
    vmap       GROUP points in one step on one device

On a machine without accelerators two devices are made of the CPU.
"""

import os
import statistics
import time
from collections.abc import Callable

import jax
from absl import app, flags, logging

from attn.train.program import Program
from attn.workdir import machine
from benchmarks.watch import Watch

GROUP = 3
CPU_DEVICES = 2
SECONDS = 2.0  # of each measurement, about
NETWORKS = {
    "cnn": {
        "name": "cnn",
        "filters": [32, 64],
        "kernel_sizes": [9, 7],
        "pools": [1, 2],
        "dense": [],
    },
    "resnet": {"name": "resnet", "layout": "cifar", "depth": 8, "stem_stride": 2},
    "mlp": {"name": "mlp", "widths": [128, 128]},
    "vit": {
        "name": "vit",
        "patch_size": 7,
        "width": 64,
        "depth": 4,
        "num_heads": 4,
        "mlp_ratio": 2.0,
    },
}

flags.DEFINE_integer("rounds", 5, "Measurements of each way; the median counts.")
flags.DEFINE_list("networks", list(NETWORKS), "Which networks to take.")
flags.DEFINE_integer("batch_size", 128, "Examples in a batch of one point.")
FLAGS = flags.FLAGS


def config(model: dict) -> dict:
    """A point of a sweep."""
    return {
        "seed": 0,
        "data": {"name": "mnist_5k", "distortion": "r"},
        "model": model,
        "task": {"name": "classification"},
        "optimizer": {"name": "sgd"},
        "schedule": {"name": "constant", "peak": 0.01},
        "train": {"steps": 100, "batch_size": FLAGS.batch_size},
    }


def stepper(program: Program, points: int) -> Callable[[int], tuple[float, float]]:
    """A function of a number of steps that gives point-steps per second: of the clock,
    and of processor time, which other programs on the machine disturb less.

    Batches lie ready as the loop gets them, one a point; they are stacked and sent at
    each step, as in the loop.
    """
    with program.dataset.train(program.train.batch_size, seed=0) as found:
        batches = [next(found) for _ in range(points)]
    batches = [{name: b[name] for name in program.fields} for b in batches]
    partition = program.partition
    state = partition.stack([program.init_state(seed) for seed in range(points)])

    def run(steps: int) -> tuple[float, float]:
        nonlocal state
        began, busy, before = time.perf_counter(), time.process_time(), None
        for _ in range(steps):
            state, loss = program.train_step(state, partition.shard_batch(batches))
            if before is not None:
                before.block_until_ready()
            before = loss
        jax.block_until_ready(state)
        taken = points * steps
        return (
            taken / (time.perf_counter() - began),
            taken / (time.process_time() - busy),
        )

    run(2)
    return run


def compare(network: str, rounds: int, watch: Watch) -> None:
    """Prints a line for each way."""
    made = config(NETWORKS[network])
    one, count = jax.devices()[:1], jax.local_device_count()
    ways = {
        "alone": stepper(Program(made, one), 1),
        "vmap": stepper(Program(made, one, "vmap"), GROUP),
    }
    if count > 1:
        ways["split"] = stepper(Program(made), 1)
        ways["devices"] = stepper(Program(made, None, "devices"), count)
    steps = {way: max(2, int(SECONDS * run(3)[0] / GROUP)) for way, run in ways.items()}
    turns, mark = watch.rounds(
        rounds, lambda: {way: run(steps[way]) for way, run in ways.items()}
    )
    rates = {way: [turn[way] for turn in turns] for way in ways}
    alone = rates.pop("alone")
    pace = statistics.median(clock for clock, _ in alone)
    print(f"{network:8} alone   {pace:8.1f} point-steps/s{mark}", flush=True)
    for way, found in rates.items():
        clock, busy = (
            [a[i] / b[i] for a, b in zip(found, alone, strict=True)] for i in (0, 1)
        )
        print(
            f"{network:8} {way:8}{statistics.median(clock):7.2f} of it"
            f" ({min(clock):.2f} to {max(clock):.2f}),"
            f" {statistics.median(busy):.2f} by processor time",
            flush=True,
        )


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.ERROR)
    # says nothing to an accelerator, and must come before JAX looks for devices
    jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
    environment = machine.environment()
    print(
        f"{jax.local_device_count()} x {environment['device']},"
        f" {environment['processor']}, {os.cpu_count()} cores,"
        f" jax {environment['packages']['jax']}"
    )
    with Watch() as watch:
        for network in FLAGS.networks:
            compare(network, FLAGS.rounds, watch)


if __name__ == "__main__":
    app.run(main)

"""What the framework costs a point, against a plain script of the same training.

    python -m benchmarks.point
    python -m benchmarks.point --rounds=9

The plain script is what one would write for this one network: its own step under
jax.jit, its own batches of the same digits in memory, undistorted; the same optimizer,
number of steps, evaluations and saves (flax.serialization, in one file). The framework
runs the same config as `launch.py` does, with its metrics, checkpoints that survive a
kill, and pictures. Both share the network and the compilation cache, run in turn, each
in a process of its own, and the median of the ratios counts: of the whole process, and
of what comes after the imports. Processor time, which does not count the wait for
cores that others use, stands beside them. The goal is at most 1.05.
"""

import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags, logging

from benchmarks.watch import Watch

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 400
EVERY = {"log": 20, "eval": 100, "save": 200}
BATCH, TESTED = 128, 250  # the test split is 4 times 250

flags.DEFINE_integer("rounds", 5, "Pairs of trainings; the medians count.")
flags.DEFINE_enum("role", None, ["plain", "framework"], "Internal: what to run.")
flags.DEFINE_string("place", None, "Internal: the directory to write to.")
FLAGS = flags.FLAGS


def use_cache() -> None:
    """The cache of compiled programs that both share."""
    import jax

    jax.config.update(
        "jax_compilation_cache_dir", str(pathlib.Path(FLAGS.place).parent / "cache")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def plain() -> float:
    """Trains by a script of its own; returns the seconds after the imports."""
    import flax.serialization
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from attn import data, models

    use_cache()
    began = time.perf_counter()
    source = data.open({"name": "mnist_5k"})
    host = models.create(
        "resnet", layout="cifar", depth=8, stem_stride=2, num_classes=10
    )

    def all_of(split):
        part = source.sources[split]
        none = np.empty((part.size, 0))
        batch = part.read(np.arange(part.size), none)
        mean, deviation = map(np.float32, part.statistics)
        return (batch["image"] / np.float32(255) - mean) / deviation, batch["label"]

    (digits, labels), (tests, answers) = all_of("train"), all_of("test")
    variables = jax.jit(lambda: host.init(jax.random.key(0), digits[:1], train=False))()
    rate = optax.warmup_cosine_decay_schedule(0.01 / 25, 0.01, 25, STEPS)
    mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    rule = optax.adamw(rate, weight_decay=0.01, mask=mask)
    state = (
        variables["params"],
        variables["batch_stats"],
        rule.init(variables["params"]),
    )

    def step(state, image, label):
        params, stats, moments = state

        def loss_of(params):
            logits, changed = host.apply(
                {"params": params, "batch_stats": stats},
                image,
                train=True,
                mutable=["batch_stats"],
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
            return loss, changed["batch_stats"]

        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, moments = rule.update(grads, moments, params)
        return (optax.apply_updates(params, updates), stats, moments), loss

    def wrong(state, image, label):
        logits = host.apply(
            {"params": state[0], "batch_stats": state[1]}, image, train=False
        )
        return jnp.sum(jnp.argmax(logits, -1) != label)

    step, wrong = jax.jit(step, donate_argnums=0), jax.jit(wrong)
    order, drawn = np.random.default_rng(0), np.empty(0, np.int64)
    losses, lines = [], []
    for number in range(1, STEPS + 1):
        while len(drawn) < BATCH:
            drawn = np.concatenate([drawn, order.permutation(len(labels))])
        rows, drawn = drawn[:BATCH], drawn[BATCH:]
        state, loss = step(state, digits[rows], labels[rows])
        losses.append(loss)
        if number % EVERY["log"] == 0:
            lines.append({"step": number, "loss": float(np.mean(losses))})
            losses = []
        if number % EVERY["eval"] == 0:
            rows = [slice(i, i + TESTED) for i in range(0, len(answers), TESTED)]
            found = sum(float(wrong(state, tests[r], answers[r])) for r in rows)
            lines.append({"step": number, "error": 100 * found / len(answers)})
        if number % EVERY["save"] == 0:
            path = pathlib.Path(FLAGS.place) / f"{number}.msgpack"
            path.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))
    path = pathlib.Path(FLAGS.place) / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return time.perf_counter() - began


def framework() -> float:
    """Trains the same as a point of a sweep; returns the seconds after the imports."""
    from attn.train import interruption
    from attn.train.progress import Silence
    from attn.train.sweep import experiment_file, local

    use_cache()
    began = time.perf_counter()
    experiment = experiment_file.load(
        ROOT / "experiments" / "attention_sweep.py",
        "",
        [
            ("data.distortion", "none"),
            ("train.steps", str(STEPS)),
            ("train.batch_size", str(BATCH)),
            ("train.eval_batch_size", str(TESTED)),
        ]
        + [(f"train.{name}_every", str(steps)) for name, steps in EVERY.items()],
    )
    local.run(
        experiment,
        experiment.select(["none-0"]),
        pathlib.Path(FLAGS.place) / "sweep",
        progress=Silence(),
        interruption=interruption.Interruption(),
    )
    return time.perf_counter() - began


def launch(role: str, place: pathlib.Path) -> tuple[float, float, float]:
    """Seconds of a process: whole, after its imports, and of processors, whole."""
    command = [sys.executable, "-m", "benchmarks.point", f"--role={role}"]
    place.mkdir()
    began, spent = time.perf_counter(), _processors()
    done = subprocess.run(
        [*command, f"--place={place}"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    whole = time.perf_counter() - began
    return whole, float(done.stdout.split()[-1]), _processors() - spent


def _processors() -> float:
    """Seconds of processor time of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def compare(rounds: int, watch: Watch) -> None:
    """Prints how much longer the framework takes."""
    numbers = itertools.count(1)
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        for role in ("plain", "framework"):  # fills the cache
            launch(role, place / f"{role}-warm")

        def pair() -> list[float]:
            number = next(numbers)
            roles = ["plain", "framework"][:: -1 if number % 2 else 1]
            took = {role: launch(role, place / f"{role}-{number}") for role in roles}
            pairs = zip(took["framework"], took["plain"], strict=True)
            ratios = [ours / theirs for ours, theirs in pairs]
            print(
                f"  round {number}: plain {took['plain'][0]:.1f} s, framework"
                f" {took['framework'][0]:.1f} s: {ratios[0]:.3f} in all,"
                f" {ratios[1]:.3f} after the imports,"
                f" {ratios[2]:.3f} in processor time",
                flush=True,
            )
            return ratios

        ratios, mark = watch.rounds(rounds, pair)
    whole, inner, processors = zip(*ratios, strict=True)
    print(
        f"framework over plain script: {statistics.median(whole):.3f} in all,"
        f" {statistics.median(inner):.3f} after the imports,"
        f" {statistics.median(processors):.3f} in processor time{mark}"
    )


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.ERROR)
    if FLAGS.role:
        print({"plain": plain, "framework": framework}[FLAGS.role]())
    else:
        with Watch(dtype=None) as watch:
            compare(FLAGS.rounds, watch)


if __name__ == "__main__":
    app.run(main)

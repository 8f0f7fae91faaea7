"""How fast a sweep of very many points is looked at, claimed and reported.

    python -m benchmarks.many_points                # 10,000 points, a minute
    python -m benchmarks.many_points --points=1000

The records are made from those of one trained point, with an error of their own each:
rows of twenty seeds, half of them done, a hundred in training. Each command runs as
the user meets it, in a process of its own; goals for 10,000 points on two quiet cores:
status below 2 s, report below 30 s, and a claim below 1 s.
"""

import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from attn.workdir.leases import Leases
from benchmarks.watch import Watch

ROOT = pathlib.Path(__file__).parents[1]
TRAINED = "experiments/attention_sweep.py:tiny"
SEEDS = 20
TRAINING = 100
KEPT = "config.json", "environment.json", "metrics.jsonl", "speed.jsonl", "outcomes.npz"

flags.DEFINE_integer("points", 10_000, "Points of the sweep; half of them are done.")
FLAGS = flags.FLAGS


def launch(*arguments: str) -> float:
    """The seconds of a command."""
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def make(trained: pathlib.Path, directory: pathlib.Path, count: int) -> list[str]:
    """Writes a sweep with records like those of a trained point; its points' names."""
    draw = random.Random(0)
    result = json.loads((trained / "result.json").read_text())
    sweep = json.loads((trained.parent / "experiment.json").read_text())
    axes = [{"attention": f"row{k // SEEDS}", "seed": k % SEEDS} for k in range(count)]
    names = [f"{a['attention']}-{a['seed']}" for a in axes]
    points = [{"name": n, "axes": a} for n, a in zip(names, axes, strict=True)]
    directory.mkdir()
    text = json.dumps({**sweep, "points": points, "baseline": {"attention": "row0"}})
    (directory / "experiment.json").write_text(text)
    for k in range(count // 2 + TRAINING):
        place = directory / names[k]
        place.mkdir()
        for file in KEPT:
            shutil.copy(trained / file, place / file)
        if k < count // 2:
            test = {**result["test"], "error": 50 + draw.gauss(0, 3)}
            record = {**result, "axes": axes[k], "test": test}
            (place / "result.json").write_text(json.dumps(record))
    return names


def main(argv: list[str]) -> None:
    """Prints the seconds of each command."""
    del argv
    with tempfile.TemporaryDirectory() as name, Watch(dtype=None) as watch:
        place = pathlib.Path(name)
        launch(f"--config={TRAINED}", "--only=none-0", f"--workdir={place / 'one'}")
        sweep = place / "many"
        names = make(place / "one" / "none-0", sweep, FLAGS.points)
        half = FLAGS.points // 2
        with Leases(sweep) as leases:
            for point in names[half : half + TRAINING]:
                leases.take(point)
            began = time.perf_counter()
            other = Leases(sweep)
            seen = other.seen()
            free = next(n for n in names[half:] if other.may_take(n, seen.get(n)))
            assert other.take(free, seen.get(free)) is not None
            print(f"claim   {time.perf_counter() - began:6.2f} s")
            for command in ("status", "report"):
                run = lambda c=command: launch(c, f"--workdir={sweep}")
                # a second run would find what the first has left
                (seconds,), mark = watch.rounds(1, run, repeats=0)
                print(f"{command}  {seconds:6.2f} s{mark}")
        size = (sweep / "report.html").stat().st_size
        print(f"page    {size / 2**20:6.2f} MiB")
    print(f"{FLAGS.points:,} points")


if __name__ == "__main__":
    app.run(main)

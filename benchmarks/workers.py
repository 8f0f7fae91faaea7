"""What several workers on one machine bring, and how long one idles between points.

    python -m benchmarks.workers                # two workers on two cores, five minutes
    python -m benchmarks.workers --workers=4 --rounds=3

A part of the default experiment, three rows of four seeds with half of the steps, is
trained by one process and by several, in turn, each with all cores between them and
the compiled programs at hand. It prints points an hour over those of one process, of
the whole commands; and the idle time: from the end of a point to the beginning of the
next one of the same program in the same process, beyond what the points themselves
took. Goals: 1.5 with two workers on two cores, 1 s. One process alone keeps more than a
core busy, which bounds what a second one can bring: the cores that each keeps busy, as
processor time over wall time, are printed beside. A disturbed round is marked, but not
measured again.
"""

import itertools
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from benchmarks.watch import Watch

ROOT = pathlib.Path(__file__).parents[1]
ROWS = "none", "cbam", "multi_head"
SWEEP = [f"--only={','.join(ROWS)}", "--config.train.steps=230", "--parallel=off"]
SWEEP += ["--config.train.eval_every=115", "--config.train.save_every=115"]

flags.DEFINE_integer("workers", 2, "Workers that are compared with one.")
flags.DEFINE_integer("rounds", 1, "Times that each is measured; medians count.")
FLAGS = flags.FLAGS


def processor() -> float:
    """Seconds of processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def launch(place: pathlib.Path, workers: int, *more: str) -> tuple[float, float]:
    """The seconds of a command, and the cores that it keeps busy."""
    began, used = time.perf_counter(), processor()
    command = [sys.executable, str(ROOT / "launch.py"), *SWEEP, *more]
    command += [f"--compilation_cache={place.parent / 'cache'}", f"--workdir={place}"]
    command += [f"--workers={workers}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return seconds, (processor() - used) / seconds


def idle(place: pathlib.Path) -> list[float]:
    """Seconds between points of one program, of a run by one process."""
    found = []
    for row in ROWS:
        results = sorted(
            place.glob(f"{row}-*/result.json"), key=lambda p: p.stat().st_mtime
        )
        for before, path in itertools.pairwise(results):
            between = path.stat().st_mtime - before.stat().st_mtime
            found.append(between - json.loads(path.read_text())["seconds"])
    return found


def main(argv: list[str]) -> None:
    """Prints a line a round, and the medians."""
    del argv
    gaps, counter = [], itertools.count()
    with tempfile.TemporaryDirectory() as name, Watch(dtype=None) as watch:
        here = pathlib.Path(name)
        launch(here / "first", 1, f"--only={','.join(f'{row}-0' for row in ROWS)}")

        def compare() -> float:
            k = next(counter)
            alone, busy = launch(here / f"one{k}", 1)
            shared, together = launch(here / f"several{k}", FLAGS.workers)
            gaps.extend(idle(here / f"one{k}"))
            print(
                f"{alone:.0f} s by one ({busy:.2f} cores busy), {shared:.0f} s by"
                f" {FLAGS.workers} ({together:.2f} cores busy):"
                f" {alone / shared:.2f} times the points an hour",
                flush=True,
            )
            return alone / shared

        ratios, mark = watch.rounds(FLAGS.rounds, compare, repeats=0)
    print(f"points an hour: {statistics.median(ratios):.2f}{mark}")
    print(f"idle: {statistics.median(gaps):.2f} s, {max(gaps):.2f} s at most")


if __name__ == "__main__":
    app.run(main)

"""How near the time that a dry run tells comes to the time of the run.

    python -m benchmarks.estimate            # three sweeps, some minutes
    python -m benchmarks.estimate --rounds=3

Each sweep is estimated by `launch.py --dry_run` and then run by the same command,
both timed as the user meets them, with a compilation cache of their own that is empty
at first. A round prints estimate over run; the goal is 1 / 1.5 to 1.5.
"""

import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from benchmarks.watch import Watch

ROOT = pathlib.Path(__file__).parents[1]
SWEEP = "experiments/attention_sweep.py"
VIT = '''"""A small vision transformer."""
from experiments import attention_sweep

def get_config(arg):
    config = attention_sweep.get_config()
    config.model = {
        "name": "vit",
        "size": "tiny",
        "patch_size": 7,
        "width": 48,
        "depth": 4,
        "num_heads": 3,
    }
    config.train.steps = 150
    return config

def sweep(arg):
    for seed in (0, 1):
        yield {"seed": seed}, {"seed": seed}
'''
CUT = ["--only=none-0,cbam-0", "--config.train.steps=100"]
FACTORS = {"h": 3600, "min": 60, "s": 1}

flags.DEFINE_integer("rounds", 1, "Times that each sweep is estimated and run.")
FLAGS = flags.FLAGS


def seconds(text: str) -> int:
    """The time that a dry run tells, such as "3 min 05 s"."""
    (told,) = re.findall(r"about (.*) in all", text)
    return sum(int(n) * FACTORS[unit] for n, unit in re.findall(r"(\d+) (\w+)", told))


def launch(arguments: list[str], place: pathlib.Path) -> tuple[float, str]:
    """The seconds of a command, and what it says."""
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    command += [f"--workdir={place / 'run'}", f"--compilation_cache={place / 'cache'}"]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - began, done.stdout


def compare(arguments: list[str]) -> float:
    """Estimates and runs a sweep once; prints both and returns their ratio."""
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        took, said = launch([*arguments, "--dry_run"], place)
        told = seconds(said)
        real, _ = launch(arguments, place)
    print(
        f"  told {told} s, took {real:.1f} s: {told / real:.2f} (the dry run took"
        f" {took:.0f} s)",
        flush=True,
    )
    return told / real


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as name, Watch(dtype=None) as watch:
        vit = pathlib.Path(name) / "vit.py"
        vit.write_text(VIT)
        sweeps = {
            "the default experiment, tiny": [f"--config={SWEEP}:tiny"],
            "the default experiment, cut": [f"--config={SWEEP}", *CUT],
            "a small vision transformer": [f"--config={vit}"],
        }
        for title, arguments in sweeps.items():
            print(title, flush=True)
            ratios, mark = watch.rounds(FLAGS.rounds, lambda a=arguments: compare(a))
            middle = statistics.median(ratios)
            print(f"  estimate over run: {middle:.2f}{mark}", flush=True)


if __name__ == "__main__":
    app.run(main)

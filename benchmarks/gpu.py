"""What to measure on a GPU, in less than eight minutes, into a file with its name.

    python -m benchmarks.gpu                     # benchmarks/devices/NVIDIA_H100.txt
    python -m benchmarks.gpu --folder=PATH --torch_python=PATH

Each part is a benchmark of its own, in a process of its own, as the memory of a GPU
belongs to one at a time. One that takes longer than its share of the time is stopped,
and what it has printed until then is kept. On a machine without a GPU the parts run on
the CPU in sizes for which that has the time, which tells only whether they work.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
DEVICE = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind)"
# What is measured: seconds at most, the benchmark, its flags on a GPU and on a CPU.
PARTS = {
    "exact attention, beside cuDNN and torch": (
        140,
        "dot_product",
        ["--dtype=bfloat16", "--rounds=5"],
        ["--only=197", "--rounds=1"],
    ),
    "windows and neighborhoods": (
        130,
        "local",
        [],
        ["--side=32", "--window=10", "--dtype=float32", "--rounds=1"],
    ),
    "points side by side": (
        90,
        "together",
        ["--networks=resnet,vit", "--rounds=3"],
        ["--networks=mlp", "--rounds=1"],
    ),
    "the training loop of the default experiment": (
        90,
        "train_loop",
        ["--rounds=3"],
        ["--rounds=1"],
    ),
}

flags.DEFINE_string("folder", str(ROOT / "benchmarks/devices"), "Where the file goes.")
flags.DEFINE_string("torch_python", sys.executable, "A Python that imports torch.")
FLAGS = flags.FLAGS


def device() -> tuple[str, str]:
    """The platform and the name of the device, from a process that leaves it again."""
    found = subprocess.run(
        [sys.executable, "-c", DEVICE], check=True, capture_output=True, text=True
    )
    platform, name = found.stdout.split(maxsplit=1)
    return platform, name.strip()


def part(name: str, platform: str) -> str:
    """What a part prints, as a section of the file."""
    seconds, module, on_gpu, on_cpu = PARTS[name]
    command = ["-m", f"benchmarks.{module}", *(on_cpu if platform == "cpu" else on_gpu)]
    title = f"## {name}\n\n    python {' '.join(command)}\n\n"
    if module == "dot_product":
        command += [f"--torch_python={FLAGS.torch_python}"]
    with tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                stdout=said,
                stderr=subprocess.PIPE,
                text=True,
                timeout=seconds,
                check=False,
            )
            end = ""
            if process.returncode:
                why = process.stderr[-2000:]
                end = f"\nended with status {process.returncode}:\n{why}"
        except subprocess.TimeoutExpired:
            end = f"\nstopped after {seconds} s\n"
        said.seek(0)
        return f"{title}{said.read()}{end}\n"


def main(argv: list[str]) -> None:
    del argv
    platform, name = device()
    path = pathlib.Path(FLAGS.folder) / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"# {name}\n\n"
    for one in PARTS:
        print(f"{one} (at most {PARTS[one][0]} s)", file=sys.stderr, flush=True)
        text += part(one, platform)
        path.write_text(text)  # a loss of the machine loses one part
    print(path)


if __name__ == "__main__":
    app.run(main)

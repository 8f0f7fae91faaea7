"""A sweep on a real SLURM of one node: queued again and preempted, and bit-equal."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.launchers import cluster

ROOT = pathlib.Path(__file__).parents[2]
FILE = """from tests.train import small

def get_config(arg):
    return small.config(train__steps=200, train__eval_every=4, train__save_every=4)
"""

pytestmark = pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing())


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with cluster.cluster(tmp_path_factory.mktemp("slurm")):
        yield


def launch(place, *words):
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    line = [sys.executable, str(ROOT / "launch.py"), *words]
    line += [f"--config={place}/sweep.py", f"--compilation_cache={cache}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    run = subprocess.run(
        line, cwd=place, env=environment, capture_output=True, text=True, timeout=1000
    )
    return run.returncode, run.stdout, run.stderr


def test_no_requeue_and_no_preemption_changes_a_bit(slurm, tmp_path):
    (tmp_path / "sweep.py").write_text(FILE)
    to = ("submit", "--to=slurm", "--launch.partition=low", "--launch.cpus=2")
    status, said, error = launch(tmp_path, *to, "--workdir=queued")
    assert status == 0, error
    job = re.fullmatch(r"Submitted batch job (\d+)\n", said)[1]
    metrics = tmp_path / "queued/point/metrics.jsonl"
    log = tmp_path / f"slurm-{job}_0.out"

    def steps():
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return json.loads(lines[-1])["step"] if lines else 0

    def states():
        return cluster.said("squeue", "-h", "-o", "%t", "-j", job).split()

    cluster.wait(lambda: steps() >= 20)
    cluster.said("scontrol", "requeue", f"{job}_0")
    cluster.wait(lambda: "R" not in states())
    before = steps()
    assert before < 200, "it was done before it could be queued again"
    cluster.wait(lambda: steps() >= before + 20)
    # all of the node for another job, which takes precedence
    urgent = ("sbatch", "-p", "high", "-c", str(os.cpu_count()), "-o", "/dev/null")
    cluster.said(*urgent, "--wrap=sleep 1")
    cluster.wait(lambda: "R" not in states())
    assert steps() < 200, "it was done before it could be preempted"
    cluster.wait(lambda: not states(), 120)
    told = log.read_text()
    assert "run the same command to go on" in told and "report:" in told

    assert launch(tmp_path, "--workdir=unbroken", "--distributed=off")[0] == 0
    assert (
        metrics.read_bytes() == (tmp_path / "unbroken/point/metrics.jsonl").read_bytes()
    )


def test_a_partition_that_does_not_exist_is_told_by_slurm(slurm, tmp_path):
    (tmp_path / "sweep.py").write_text(FILE)
    to = ("submit", "--to=slurm", "--launch.partition=nothing")
    status, said, error = launch(tmp_path, *to)
    assert (status, said) == (2, "")
    assert error.startswith("launch.py: sbatch: ") and error.count("\n") == 1
    assert "invalid partition specified: nothing" in error

"""A sweep in an object store: two workers, one of them killed, and the report."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from attn import report
from attn.report.read import saved
from attn.train.interruption import Interruption
from attn.train.store.checkpoint import Checkpoints
from attn.train.sweep import experiment_file, local
from attn.workdir import files
from tests import buckets
from tests.train import small

ROOT = pathlib.Path(__file__).parents[3]
FILE = '''"""A title."""
from tests.train import small

def get_config(arg):
    return small.config(train__steps=6, train__save_every=2)

def sweep(arg):
    for seed in range(2):
        yield {"seed": seed}, {"seed": seed}
'''
SLOW = """
import sys, time
from tests.train import small
from tests.train.sweep import store_test

class Slow(small.Listener):
    def update(self, *, step, **values):
        if step >= 4:
            print("at step 4", flush=True)
            time.sleep(600)

store_test.run(sys.argv[1], sys.argv[2], Slow())
"""


ENDLESS = """
import pathlib, sys
import s3fs
from attn.commands import run
from attn.train.sweep import experiment_file
from attn.workdir import files

s3fs.S3FileSystem().mkdir("bucket")
experiment = experiment_file.load(pathlib.Path(sys.argv[1]), "")
directory = files.path("s3://bucket/sweep")
sys.exit(run.train(experiment, experiment.points, directory, parallel="off"))
"""


def run(path, directory, listener, only=()):
    experiment = experiment_file.load(pathlib.Path(path), "")
    local.run(
        experiment,
        experiment.select(only),
        files.path(directory),
        progress=listener,
        interruption=Interruption(),
    )


class KillsAfterOne(small.Listener):
    """Kills another worker once this one has trained a point."""

    def __init__(self, other):
        super().__init__()
        self._other = other

    def point_done(self, summary):
        super().point_done(summary)
        self._other.send_signal(signal.SIGKILL)


def test_what_a_killed_worker_left_is_resumed_by_another(tmp_path):
    address = f"{buckets.new()}/sweep"
    path = tmp_path / "seeds.py"
    path.write_text(FILE)
    command = [sys.executable, "-c", SLOW, str(path), address]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True
    ) as other:
        alone = threading.Thread(
            target=run, args=[path, str(tmp_path / "w"), small.Listener(), ["0"]]
        )
        alone.start()
        assert other.stdout.readline() == "at step 4\n"
        alone.join()
        listener = KillsAfterOne(other)
        run(path, address, listener)

    directory = files.path(address)
    assert [name for _, _, name in listener.points] == ["1", "0"]
    assert "resumes at step 2" in listener.notes
    place, plain = directory / "0", tmp_path / "w" / "0"
    assert files.names(place / "checkpoints") == ["4.tar", "6.tar"]
    for file in ("metrics.jsonl", "outcomes.npz", "config.json"):
        assert (place / file).read_bytes() == (plain / file).read_bytes(), file
    assert len(files.read_json(place / "environment.json")) == 2
    assert len(files.names(place / "tensorboard")) == 2
    assert files.names(directory / ".leases") == []
    arrays, unbroken = (
        Checkpoints(where / "checkpoints", read_only=True).arrays()
        for where in (place, plain)
    )
    assert arrays.keys() == unbroken.keys()
    assert all((arrays[name] == unbroken[name]).all() for name in arrays)

    page = report.write([address], directory / "report.html")
    assert str(page) == f"{address}/report.html"
    assert "A title" in page.read_text()
    then = report.save(address, f"{address}/results.json")
    assert len(saved.read(then).done) == 2


def test_a_store_that_answers_no_more_ends_a_run_which_can_be_started_again(tmp_path):
    server, variables = buckets.server()
    path = tmp_path / "seeds.py"
    path.write_text(FILE.replace("steps=6", "steps=100_000"))
    command = [sys.executable, "-c", ENDLESS, str(path)]
    environment = {**os.environ, **variables, "AWS_MAX_ATTEMPTS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        storage = buckets.client(variables)
        while not storage.glob("bucket/sweep/0/checkpoints/*"):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        server.stop()
        _, said = process.communicate()
    assert process.returncode == 75, said
    line = said.splitlines()[-1]
    assert line.startswith("stopped: the store of s3://bucket/sweep does not answer: ")
    assert line.endswith("; run the same command to go on")

"""Workers of one command: their shares, their signals, their end."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from attn import settings
from attn.commands import run, workers
from attn.train import ending
from attn.workdir import files
from attn.workdir.leases import FOLDER

ROOT = pathlib.Path(__file__).parents[2]
SWEEP = """from tests.train import small

def get_config(arg):
    return small.config(
        train__steps=120, train__save_every=5, train__eval_every=60, model__width=16
    )

def sweep(arg):
    for seed in range(3):
        yield {"seed": seed}, {"seed": seed}
"""
# A worker in short: says who it is, trains until told to stop, ends as told.
PLAYED = """
import json, os, pathlib, signal, sys, time
here, how, end = pathlib.Path(sys.argv[1]), sys.argv[2], time.monotonic() + 1000
def wait(over):
    while not over() and time.monotonic() < end:
        time.sleep(0.05)
def stop(*_):
    (here / f"{os.getpid()}.stopped").write_text("")
    sys.exit(75)
if how == "starts slowly":
    (here / f"{os.getpid()}.begun").write_text("")
    wait(lambda: list(here.glob("asked")))
signal.signal(signal.SIGTERM, stop)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
(here / f"{os.getpid()}.said").write_text(json.dumps([*os.sched_getaffinity(0)]))
if how == "measures":
    time.sleep(1)
    (here / f"{len(list(here.glob('*.said')))}.measured").write_text("")
if how != "unwritten":
    os.utime(here / "experiment.json")
print("launch.py: the last line")
if how not in ("wrong", "failed", "unwritten"):
    wait(lambda: len(list(here.glob("*.said"))) >= 2)
if how == "killed" and os.getpid() == min(int(p.stem) for p in here.glob("*.said")):
    os.kill(os.getpid(), 9)
if how == "until told":
    wait(lambda: False)
sys.exit({"wrong": 2, "failed": 1, "unwritten": 1}.get(how, 0))
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Runs workers that are played, and gives status and what they said."""
    record = {"title": "Played", "points": []}
    files.write_json(tmp_path / "experiment.json", record)
    monkeypatch.setattr(run, "show", lambda *_: print("the report"))
    monkeypatch.setattr(workers, "LOOK", 0.05)
    program = tmp_path / "played.py"
    program.write_text(PLAYED)

    def played(how, count=2, **options):
        command = [sys.executable, str(program), str(tmp_path), how]
        status = workers.train(command, tmp_path, count, tracking=None, **options)
        return status, [json.loads(p.read_text()) for p in tmp_path.glob("*.said")]

    return played


def machine(monkeypatch, platform, number):
    answer = types.SimpleNamespace(stdout=f"{platform} {number}\n", returncode=0)
    monkeypatch.setattr(workers.subprocess, "run", lambda *_, **__: answer)


def test_each_has_its_share_of_the_cores(play):
    before = os.sched_getaffinity(0)
    status, said = play("both at once")
    assert status == 0
    assert os.sched_getaffinity(0) == before
    given = [core for cores in said for core in cores]
    assert len(said) == 2
    assert {*given} == before
    if len(before) > 1:
        assert sorted(given) == sorted(before)


def test_the_others_wait_for_what_the_first_measures(play, tmp_path):
    """Also where an earlier command has left its leases."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "p.1").write_text("{}")
    status, said = play("measures")
    assert status == 0
    assert len(said) == 2
    # as many as had begun when each was through
    assert {path.name for path in tmp_path.glob("*.measured")} == {
        "1.measured",
        "2.measured",
    }


@pytest.mark.parametrize(
    ("cores", "count", "shares"),
    [
        ({0, 1, 2, 3}, 2, [{0, 1}, {2, 3}]),
        ({4, 6, 9}, 2, [{4}, {6, 9}]),
        ({0, 1}, 3, [{0}, {1}, {0}]),
    ],
)
def test_cores_are_cut_into_shares(monkeypatch, cores, count, shares):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    assert workers._cores(count) == shares


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ["0", "1"]), ("5,7,8", ["5", "7"])]
)
def test_each_has_a_gpu_of_its_own(monkeypatch, visible, expected):
    machine(monkeypatch, "gpu", 3)
    monkeypatch.delenv(workers.VISIBLE, raising=False)
    if visible:
        monkeypatch.setenv(workers.VISIBLE, visible)
    found = [variables[workers.VISIBLE] for _, variables in workers._places(2)]
    assert found == expected


def test_more_workers_than_gpus_and_other_devices_are_refused(monkeypatch):
    machine(monkeypatch, "gpu", 3)
    with pytest.raises(settings.Invalid, match=r"--workers=4 needs .* there are 3"):
        workers._places(4)
    machine(monkeypatch, "tpu", 4)
    with pytest.raises(settings.Invalid, match="on a tpu, --parallel=devices"):
        workers._places(2)


def test_devices_that_cannot_be_had_are_one_sentence(monkeypatch):
    monkeypatch.setattr(workers, "PROBE", "import sys; sys.exit('no\\nsuch backend')")
    with pytest.raises(settings.Invalid, match=r"finds no devices: such backend$"):
        workers._places(2)


def test_what_is_wrong_is_said_once(play):
    with pytest.raises(settings.Invalid, match=r"^the last line$"):
        play("wrong")


def test_a_point_that_failed_is_a_status(play, capsys):
    assert play("failed")[0] == 1
    assert "the last line" in capsys.readouterr().err


def test_an_error_before_the_sweep_is_written_is_said_and_its_log(
    play, capsys, tmp_path
):
    (tmp_path / "experiment.json").unlink()
    assert play("unwritten", count=1)[0] == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"launch.py: the last line; see .*\.workers/1\.log\n", said)


def test_no_report_is_made_where_none_is_asked_for(play, capsys):
    play("both at once", report=False)
    assert "the report" not in capsys.readouterr().out


def test_points_that_were_not_asked_for_are_no_failure(play, capsys, monkeypatch):
    lost = types.SimpleNamespace(failed={"b-0": "diverged"})
    monkeypatch.setattr(workers.status, "read", lambda directory: [lost])
    monkeypatch.setattr(workers.standings.Watch, "show", lambda self, stands: None)
    assert play("both at once", names={"a-0"})[0] == 0
    assert play("both at once", names={"b-0"})[0] == 1
    assert "failed: b-0: diverged" in capsys.readouterr().err


def test_a_look_that_fails_is_taken_again(play, monkeypatch):
    looks = []

    def silent(directory):
        looks.append(directory)
        if len(looks) == 1:
            raise OSError("no answer")
        return read(directory)

    read = workers.status.read
    monkeypatch.setattr(workers.status, "read", silent)
    assert play("both at once")[0] == 0
    assert len(looks) > 1


def test_of_one_that_is_killed_the_others_go_on(play, capsys):
    assert play("killed")[0] == 0
    said = capsys.readouterr().out
    assert re.search(r"worker \d ended by signal 9; see .*\.workers/\d\.log", said)
    assert "the report" in said


def test_the_first_signal_asks_and_the_second_kills(play, tmp_path):
    def send():
        while len(list(tmp_path.glob("*.said"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    status, _ = play("until told")
    assert status == 75
    assert len(list(tmp_path.glob("*.stopped"))) == 2


def test_a_signal_while_a_worker_imports_is_kept_for_it(play, tmp_path):
    def send():
        while not list(tmp_path.glob("*.begun")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        (tmp_path / "asked").write_text("")

    threading.Thread(target=send).start()
    assert play("starts slowly", count=1)[0] == 75
    assert len(list(tmp_path.glob("*.stopped"))) == 1


@pytest.mark.parametrize("during", [1, 2])
def test_a_signal_while_a_worker_is_started_is_not_lost(
    play, tmp_path, monkeypatch, during
):
    start, started = subprocess.Popen, []

    def interrupted(*arguments, **options):
        started.append(start(*arguments, **options))
        if len(started) == during:
            while len(list(tmp_path.glob("*.said"))) < during:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr(workers, "_places", lambda count: [(None, {})] * count)
    monkeypatch.setattr(workers.subprocess, "Popen", interrupted)
    status, _ = play("until told")
    assert status == 75
    assert len(started) == during
    assert all(process.poll() is not None for process in started)


def launch(*arguments):
    """Starts launch.py as a user does, with the compiled programs of the tests."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), *arguments],
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_sweep_is_stopped_and_goes_on(tmp_path):
    file, work = tmp_path / "three.py", tmp_path / "run"
    file.write_text(SWEEP)
    cache = f"--compilation_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}"
    command = f"--config={file}", f"--workdir={work}", "--workers=2", cache
    process = launch(*command)
    # Any checkpoint: of the first one the later ones may have made room already.
    while not list(work.glob("*/checkpoints/[0-9]*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=1000)
    assert process.returncode == ending.STOPPED, output
    assert len(list(work.glob("*/result.json"))) < 3
    process = launch(*command)
    output, _ = process.communicate(timeout=1000)
    assert process.returncode == 0, output
    assert len(list(work.glob("*/result.json"))) == 3
    assert (work / "report.html").exists()
    assert not any((work / FOLDER).iterdir())
    output, _ = launch("status", f"--workdir={work}", "--watch").communicate()
    assert "3 of 3 points done" in output

"""Two hosts of two devices each: the steps of one, and a stop for both."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILE = """from tests.train import small

def get_config(arg):
    return small.config(train__steps={steps}, train__save_every=4)
"""


def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(place, *, hosts, devices, steps):
    """The same command on every host, each with a work directory of its own."""
    (place / "hosts.py").write_text(FILE.format(steps=steps))
    flags = f"--xla_force_host_platform_device_count={devices}"
    address = f"127.0.0.1:{port()}"
    return [
        subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "launch.py"),
                f"--config={place}/hosts.py",
                f"--workdir={place}/{index}",
                f"--distributed={f'{address},{hosts},{index}' if hosts > 1 else 'off'}",
                f"--compilation_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}",
            ],
            env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(hosts)
    ]


def end(processes, code):
    outputs = []
    for process in processes:
        try:
            outputs.append(process.communicate(timeout=150)[0])
        finally:
            process.kill()  # JAX takes SIGTERM for a notice, so nothing less will do
    assert [process.returncode for process in processes] == [code] * len(processes), (
        outputs
    )
    return outputs


def metrics(place):
    path = place / "0" / "point" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def places(tmp_path):
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    return tmp_path / "two", tmp_path / "one"


def test_two_hosts_take_the_steps_of_one_and_the_first_one_writes(places):
    two, one = places
    told = end(start(two, hosts=2, devices=2, steps=6), 0)
    end(start(one, hosts=1, devices=4, steps=6), 0)
    found, want = metrics(two), metrics(one)
    assert len(found) == len(want) == 5
    for a, b in zip(found, want, strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-4)
    assert "report:" in told[0]
    assert "report:" not in told[1]
    assert not (two / "1").exists()


def test_a_notice_to_one_host_stops_both_and_they_go_on_together(places):
    two, one = places
    processes = start(two, hosts=2, devices=2, steps=60)
    until = time.monotonic() + 120
    while not (two / "0/point/metrics.jsonl").exists() or not metrics(two):
        assert time.monotonic() < until, [p.poll() for p in processes]
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    told = end(processes, 75)
    assert "run the same command to go on" in told[0]
    told = end(start(two, hosts=2, devices=2, steps=60), 0)
    assert "resumes at step" in told[0]
    end(start(one, hosts=1, devices=4, steps=60), 0)
    assert [line["step"] for line in metrics(two)] == [
        line["step"] for line in metrics(one)
    ]
    last, want = metrics(two)[-1], metrics(one)[-1]
    assert last["loss"] == pytest.approx(want["loss"], rel=1e-2)

"""Two hosts of two devices each: the steps of one, and a stop for both."""

import json
import signal

import pytest

from tests.train.hosts import end, wait_until
from tests.train.hosts import start as begin

FILE = """from tests.train import small

def get_config(arg):
    return small.config(train__steps={steps}, train__save_every=4)
"""


def start(place, *, hosts, devices, steps):
    """The same command on every host, each with a work directory of its own."""
    config = place / "hosts.py"
    config.write_text(FILE.format(steps=steps))
    return begin(config, place / "{index}", hosts=hosts, devices=devices)


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
    written = two / "0/point/metrics.jsonl"
    wait_until(processes, lambda: written.exists() and metrics(two))
    processes[1].send_signal(signal.SIGUSR2)
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

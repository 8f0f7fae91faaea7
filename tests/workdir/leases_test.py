"""Leases: one holder a point, taken over only from one that shows no sign of life."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from attn.workdir.leases import Leases, Lost


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def workers(tmp_path):
    """Two workers, whose clocks have nothing in common, and which beat by hand only."""
    made = [Leases(tmp_path, span=60.0, clock=Clock(now)) for now in (7.0, 1e6)]
    made[0]._folder.mkdir()
    return made


def take(leases, name="p"):
    held = leases.seen().get(name)
    return leases.take(name, held) if leases.may_take(name, held) else None


def test_one_holds_a_point_until_it_gives_it_up(workers):
    a, b = workers
    lease = take(a)
    assert take(b) is None
    assert take(a) is None
    assert take(b, "q") is not None
    lease.give_up("ValueError: no")
    assert b.seen()["p"].free
    assert b.seen()["p"].reason == "ValueError: no"
    assert take(b) is not None
    assert take(a) is None


@pytest.mark.parametrize("character", ["\N{GRINNING FACE}", "\x00", "\udc80"])
def test_a_reason_of_any_characters_can_be_read(workers, character):
    a, b = workers
    take(a).give_up(character * 300)
    assert b.seen()["p"].free
    assert len(b.seen()["p"].reason) == 200


def test_a_point_that_is_over_leaves_no_file(workers, tmp_path):
    take(workers[0]).over()
    assert not list((tmp_path / ".leases").iterdir())


def test_it_is_stale_when_the_observer_saw_no_change_for_the_span(workers):
    a, b = workers
    lease = take(a)
    assert take(b) is None
    b.clock.now += 50
    lease.renew()
    assert take(b) is None
    b.clock.now += 50
    assert take(b) is None  # 50 since the change was seen
    b.clock.now += 20
    assert take(b) is not None


def test_the_span_is_that_of_the_holder(tmp_path):
    a = Leases(tmp_path, span=5.0)
    b = Leases(tmp_path, span=1000.0, clock=Clock())
    (tmp_path / ".leases").mkdir()
    take(a)
    assert take(b) is None
    b.clock.now += 6
    assert take(b) is not None


def test_a_holder_that_was_only_paused_finds_out_before_it_writes(workers):
    a, b = workers
    lease = take(a)
    take(b)
    b.clock.now += 61
    other = take(b)
    lease.check()  # by its own clock no time has passed
    a.clock.now += 61
    with pytest.raises(Lost, match="p was taken over"):
        lease.check()
    lease.over()
    lease.give_up()
    other.check()
    assert not b.seen()["p"].free


@pytest.mark.parametrize("left", [b"", b'{"host": "a", "pi'])
def test_a_kill_while_a_lease_is_written_delays_and_loses_nothing(
    workers, tmp_path, left
):
    (tmp_path / ".leases" / "p.1").write_bytes(left)
    _, b = workers
    assert take(b) is None
    b.clock.now += 61
    assert take(b) is not None


def test_a_kill_between_the_new_file_and_the_end_of_the_old_one(workers, tmp_path):
    a, b = workers
    lease = take(a)
    old = (tmp_path / ".leases" / "p.1").read_bytes()
    (tmp_path / ".leases" / "p.2").write_bytes(old)
    lease.renew()
    assert lease.lost
    assert b.seen()["p"].generation == 2


def test_names_that_begin_alike_are_not_taken_for_each_other(workers, tmp_path):
    a, _ = workers
    for name in ("0", "0.1", "0.1.1"):
        assert take(a, name)
    assert sorted(a.seen()) == ["0", "0.1", "0.1.1"]
    assert len(list((tmp_path / ".leases").iterdir())) == 3
    a._held["0"].give_up()
    assert take(a, "0")
    assert len(list((tmp_path / ".leases").iterdir())) == 3


@pytest.mark.parametrize("left", [".nfs0000000001a2", ".DS_Store", "p.tmp", ".p.7"])
def test_what_systems_leave_among_the_leases_is_no_lease(workers, tmp_path, left):
    a, b = workers
    (tmp_path / ".leases" / left).write_bytes(b"")
    assert a.seen() == {}
    take(a).give_up()
    assert take(b) is not None
    assert b.seen().keys() == {"p"}
    assert sorted(path.name for path in (tmp_path / ".leases").iterdir()) == sorted(
        [left, "p.2"]
    )


def test_of_many_that_see_a_stale_lease_one_takes_it(tmp_path):
    many = [Leases(tmp_path, span=1.0, clock=Clock()) for _ in range(8)]
    (tmp_path / ".leases").mkdir()
    take(Leases(tmp_path, span=1.0))
    for round_ in range(20):
        for leases in many:
            leases.seen()
            leases.clock.now += 2
        seen = [leases.seen()["p"] for leases in many]
        found, gate = [], threading.Barrier(len(many))

        def race(leases, held, found=found, gate=gate):
            gate.wait()
            found.append(leases.take("p", held))

        threads = [
            threading.Thread(target=race, args=pair)
            for pair in zip(many, seen, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(lease is not None for lease in found) == 1, round_
        for leases in many:
            leases._held.clear()


def test_a_killed_process_of_this_machine_need_not_be_waited_for(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from attn.workdir.leases import Leases\n"
        "with Leases(pathlib.Path(sys.argv[1])) as leases:\n"
        "    leases.take('p')\n"
        "    print('has it', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"has it\n"
        leases = Leases(tmp_path)
        assert take(leases) is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert take(leases) is not None


def test_a_process_of_another_machine_with_the_same_number_is_no_sign(workers):
    a, b = workers
    a.facts |= {"place": "elsewhere", "pid": os.getpid(), "started": "0"}
    take(a)
    assert take(b) is None


def test_leaving_gives_up_what_is_held(tmp_path):
    with Leases(tmp_path) as leases:
        take(leases)
    assert Leases(tmp_path).seen()["p"].free


def test_it_shows_signs_of_life_by_itself_with_what_is_noted(tmp_path):
    with Leases(tmp_path, {"code": "abc"}, span=0.06) as leases:
        lease = take(leases)
        lease.notes = {"step": 7}
        path = tmp_path / ".leases" / "p.1"
        while json.loads(path.read_bytes() or "{}").get("beat", 0) < 3:
            pass
        content = leases.seen()["p"].content
        assert content["step"] == 7
        assert content["code"] == "abc"
        assert not lease.lost

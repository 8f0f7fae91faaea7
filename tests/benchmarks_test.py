"""What benchmarks see of the machine's load, and what they make of it."""

import itertools
import pathlib
import re

import pytest

from benchmarks import gpu, watch
from benchmarks.watch import Load, Moment, Watch

ROOT = pathlib.Path(__file__).parents[1]
STAT = "cpu  100 20 30 1000 50 4 5 6 70 8\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def process(pid: int, parent: int, *ticks: int, name: str = "python") -> str:
    """A text of /proc/PID/stat; ticks are utime, stime, cutime and cstime."""
    return " ".join([f"{pid} ({name}) R {parent}", *"123456789", *map(str, ticks), "9"])


def machine(others):
    """A look at the clock: at each, 2 of 4 cores were ours for a second, and others
    used a share."""
    wall, own, everything = itertools.count(), itertools.count(0, 2), 0.0
    for share in others:
        yield Moment(float(next(wall)), float(next(own)), everything)
        everything += 2 + 4 * share


def watched(*others: float) -> Watch:
    """Rounds of a second each; a stretch looks at the clock before and after it."""
    looks = machine(itertools.chain.from_iterable((share, 0.0) for share in others))
    return Watch(look=looks.__next__, cores=4)


def test_a_peak_that_drifts_is_said():
    watch = watched(0.0)
    watch.peak = 100.0
    assert watch.last(95.0) == "after: matrix peak 95 GFLOP/s"
    assert "0.80 times that before" in watch.last(80.0)
    assert "1.20 times that before" in watch.last(120.0)


def test_idle_waiting_and_guest_ticks_are_not_counted():
    assert watch.all_ticks(STAT) == 100 + 20 + 30 + 4 + 5 + 6


def test_another_form_of_stat_is_refused():
    for text in ("cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8\n"):
        with pytest.raises(ValueError):
            watch.all_ticks(text)


def test_own_ticks_are_those_of_the_tree():
    stats = [
        process(12, 11, 1, 2, 3, 4, name="a (b) c"),  # before its parent
        process(10, 1, 100, 200, 300, 400),
        process(11, 10, 10, 20, 30, 40),
        process(13, 1, 5000, 0, 0, 0),
    ]
    assert watch.own_ticks(stats, 10) == 1000 + 100 + 10


def test_load_is_a_share_of_all_cores():
    load = Load.between(Moment(0, 10, 50), Moment(2, 13, 57), cores=4)
    assert load == Load(own=1.5, others=0.5)


def test_ticks_lost_to_rounding_are_not_less_than_nothing():
    assert Load.between(Moment(0, 0, 0), Moment(1, 2, 1.9), 2).others == 0


def test_where_nothing_is_known_nothing_is_disturbed():
    load = Load.between(Moment(0, 0, None), Moment(2, 3, None), 4)
    assert load == Load(1.5, None)
    assert not load.disturbed


def test_a_disturbed_round_is_measured_again():
    one, values = watched(0.0, 0.5, 0.02, 0.03), itertools.count()
    assert one.rounds(3, lambda: next(values)) == ([0, 2, 3], "")
    assert "measured again: 1; disturbed: 0 of 1" in one.line()
    assert "others used 2 % (at most 3 %)" in one.line()
    assert "2.00 of 4 processors" in one.line()


def test_what_stays_disturbed_is_marked():
    shares = [0.5] * (watch.REPEATS + 2) + [0.0]
    one, values = watched(*shares), itertools.count()
    found, mark = one.rounds(2, lambda: next(values))
    assert (found, mark) == ([watch.REPEATS, watch.REPEATS + 1], " (disturbed)")
    assert one.rounds(1, lambda: next(values))[1] == ""
    assert f"again: {watch.REPEATS}; disturbed: 1 of 2" in one.line()


def test_what_cannot_be_repeated_is_marked_at_once():
    assert watched(0.5).rounds(1, lambda: 7, repeats=0) == ([7], " (disturbed)")


def test_short_rounds_fill_a_stretch():
    ticks = itertools.count()
    one = Watch(look=lambda: Moment(next(ticks) * watch.SPAN / 4, 0, None), cores=1)
    assert one.rounds(2, lambda: 1) == ([1] * 4, "")
    assert "others used an unknown share of the machine" in one.line()


def test_the_share_of_the_peak():
    one = Watch()
    one.peak = 80.0
    assert one.share(flops=40e9, seconds=2.0) == "25 %"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem
)
def test_what_times_watches(path):
    text = path.read_text()
    if "app.run" in text and "perf_counter" in text:
        assert "Watch(" in text
        assert "watch.rounds(" in text


@pytest.mark.parametrize(
    ("seconds", "module", "says"),
    [
        (100, "nothing", "ended with status 1:\n.*No module named benchmarks.nothing"),
        (0.01, "watch", "stopped after 0.01 s"),
    ],
)
def test_a_part_on_a_gpu_that_fails_or_takes_too_long_says_so(
    seconds, module, says, monkeypatch
):
    monkeypatch.setattr(gpu, "PARTS", {"one": (seconds, module, ["--fast"], [])})
    found = gpu.part("one", "gpu")
    assert found.startswith(f"## one\n\n    python -m benchmarks.{module} --fast\n\n")
    assert re.search(says, found, re.DOTALL)
    assert "--fast" not in gpu.part("one", "cpu")

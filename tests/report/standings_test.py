"""Standings on a terminal and elsewhere."""

import io

import rich.console

from attn.report import standings
from attn.workdir.standing import Standing, Training


def standing(done=3, **changes):
    values = {
        "title": "A sweep",
        "done": [f"d{k}" for k in range(done)],
        "failed": {"f0": "loss is NaN"},
        "training": [
            Training("t0", "host-1, process 7", (20, 100), 65.0, None),
            Training("t1", "host-2, process 8", None, None, 200.0),
        ],
        "begun": ["b0"],
        "waiting": ["w0", "w1"],
        "seconds_left": 130.0,
    }
    return Standing(**{**values, **changes})


def test_counts_name_what_there_is():
    assert standings.counts(standing()) == (
        "3 of 9 points done, 1 failed, 2 training, 1 begun, 2 waiting;"
        " about 2 min 10 s left"
    )
    over = standing(9, failed={}, training=[], begun=[], waiting=[], seconds_left=0)
    assert standings.counts(over) == "9 of 9 points done"


def test_who_trains_what_and_what_failed_has_a_line(capsys):
    standings.show([standing()])
    text = capsys.readouterr().out
    for line in (
        "training  t0  host-1, process 7, step 20 of 100, 1 min 05 s left",
        "training  t1  host-2, process 8, no sign of life for 3 min 20 s",
        "failed    f0  loss is NaN",
        "begun     b0  nobody trains it",
    ):
        assert line in text


def test_of_very_many_only_some_are_named(capsys):
    standings.show([standing(failed={f"f{k}": "no" for k in range(1000)})])
    text = capsys.readouterr().out
    assert "1000 failed" in text
    assert text.count("failed ") < 30


def test_outside_a_terminal_a_line_says_what_changed_now_and_then():
    stream, now = io.StringIO(), [0.0]
    console = rich.console.Console(file=stream, width=200)
    with standings.Watch(console, clock=lambda: now[0]) as watch:
        for seconds, done in ((0, 1), (5, 2), (11, 2), (30, 2), (60, 3)):
            now[0] = seconds
            watch.show([standing(done)])
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]


def test_on_a_terminal_it_is_shown_anew():
    stream = io.StringIO()
    console = rich.console.Console(
        file=stream, force_terminal=True, width=100, _environ={"TERM": "xterm"}
    )
    with standings.Watch(console) as watch:
        watch.show([standing(1)])
        watch.show([standing(2)])
    assert "1 of 7 points done" in stream.getvalue()
    assert "2 of 8 points done" in stream.getvalue()

"""Progress as it comes out on terminals and in files."""

import io

import pytest
import rich.console

from attn.report import live


class Clock:
    """Time that goes when told to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def run(console, clock, points=2, updates=6):
    """Points of 6 updates, 4 s apart."""
    with live.Progress(console, clock=clock) as progress:
        progress.note("1 of 3 points are done already")
        for k in range(1, points + 1):
            progress.point(k, points, f"cbam-{k}")
            for i in range(1, updates + 1):
                clock.now += 4
                progress.update(
                    step=10 * i,
                    steps=60,
                    loss=2.0 / i,
                    examples_per_s=2512.4,
                    seconds_left=4.0 * (updates - i),
                )
            progress.point_done(f"cbam-{k}: test error 3.20 %")


def test_in_a_file_progress_is_a_line_now_and_then(clock):
    file = io.StringIO()
    run(rich.console.Console(file=file, width=40), clock)
    assert file.getvalue().splitlines() == [
        "1 of 3 points are done already",
        "[1/2] cbam-1, step 10 of 60, loss 2.000, 2,512 examples/s, 20 s left,"
        " 44 s for all",
        "[1/2] cbam-1, step 40 of 60, loss 0.500, 2,512 examples/s, 8 s left,"
        " 32 s for all",
        "[1/2] cbam-1: test error 3.20 % (24 s)",
        "[2/2] cbam-2, step 10 of 60, loss 2.000, 2,512 examples/s, 20 s left",
        "[2/2] cbam-2, step 40 of 60, loss 0.500, 2,512 examples/s, 8 s left",
        "[2/2] cbam-2: test error 3.20 % (24 s)",
    ]


def test_points_that_train_together_share_the_time(clock):
    file = io.StringIO()
    with live.Progress(rich.console.Console(file=file), clock=clock) as progress:
        progress.point(4, 8, "cnn-r (3 seeds together)", [5, 6])
        clock.now += 30
        progress.update(step=5, steps=10, loss=1, examples_per_s=9, seconds_left=30)
        clock.now += 30
        for k in (4, 5, 6):
            progress.point_done(f"cnn-r-{k}: test error 3.20 %")
        progress.point(7, 8, "cnn-p-0")
        clock.now += 10
        progress.update(step=5, steps=10, loss=1, examples_per_s=9, seconds_left=10)
    assert file.getvalue().splitlines() == [
        # 60 s for three points, so 20 s for each of the two that follow
        "[4-6/8] cnn-r (3 seeds together), step 5 of 10, loss 1.000, 9 examples/s,"
        " 30 s left, 1 min 10 s for all",
        "[4/8] cnn-r-4: test error 3.20 % (20 s)",
        "[5/8] cnn-r-5: test error 3.20 % (20 s)",
        "[6/8] cnn-r-6: test error 3.20 % (20 s)",
        "[7/8] cnn-p-0, step 5 of 10, loss 1.000, 9 examples/s, 10 s left,"
        " 30 s for all",
    ]


@pytest.mark.parametrize("width", [120, 30, 2])
def test_on_a_terminal_progress_is_one_live_line(clock, width):
    file = io.StringIO()
    console = rich.console.Console(
        file=file,
        width=width,
        force_terminal=True,
        height=4,
        _environ={"TERM": "xterm"},
    )
    with live.Progress(console, clock=clock) as progress:
        progress.point(2, 5, "cbam-1")
        assert len(console.render_lines(progress._line())) == 1
        progress.update(
            step=30, steps=60, loss=0.5, examples_per_s=900.0, seconds_left=30.0
        )
        lines = console.render_lines(progress._line())
        text = "".join(segment.text for segment in lines[0])
    assert len(lines) == 1
    assert len(text) <= width
    if width == 120:
        for part in (
            "[2/5] cbam-1",
            "step 30 of 60",
            "loss 0.500",
            "30 s left",
            "2 min",
        ):
            assert part in text


def test_what_is_not_known_yet_is_left_out(clock):
    file = io.StringIO()
    with live.Progress(rich.console.Console(file=file), clock=clock) as progress:
        progress.point(1, 1, "a")
        progress.update(1, 9, float("nan"), float("nan"), None)
    assert file.getvalue() == "[1/1] a, step 1 of 9, loss nan\n"


def test_ctrl_c_passes_through_and_gives_the_cursor_back(clock):
    file = io.StringIO()
    console = rich.console.Console(
        file=file, force_terminal=True, _environ={"TERM": "xterm"}
    )
    with (
        pytest.raises(KeyboardInterrupt),
        live.Progress(console, clock=clock) as progress,
    ):
        progress.point(1, 1, "a")
        raise KeyboardInterrupt
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


def test_names_with_brackets_are_shown_as_they_are(clock):
    file = io.StringIO()
    with live.Progress(rich.console.Console(file=file), clock=clock) as progress:
        progress.point(1, 1, "x[bold]")
        progress.point_done("x[bold]: done")
    assert "x[bold]: done" in file.getvalue()

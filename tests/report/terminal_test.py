"""The table and the progress as they come out on terminals and in files."""

import io
import json

import pytest
import rich.console

from attn.report import results, table, terminal
from tests.report import synthetic


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("terminal") / "sweep"
    names = ["none", "squeeze_excite", "spatial_transformer"]
    synthetic.sweep(root, names, seeds=3, images=1)
    (root / "squeeze_excite-2" / "result.json").unlink()
    return results.read(root)


def shown(sweep, width, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    terminal.show([sweep], rich.console.Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_table_has_every_column_where_there_is_room(sweep):
    text = shown(sweep, 120)
    head = next(line for line in text.splitlines() if line.startswith("attention"))
    for name in ("seeds", "error, %", "difference", "parameters", "MACs, M", "ms/step"):
        assert name in head
    row = next(line for line in text.splitlines() if line.startswith("spatial_tr"))
    for part in ("98,520", "7.01", "lower", table.PLUS_MINUS, table.MINUS):
        assert part in row
    assert "baseline" in text


def test_unfinished_points_are_listed_below(sweep):
    text = shown(sweep, 120)
    assert "Not finished: 1 of 9 points" in text
    assert "recorded up to step 250 of 250: squeeze_excite-2" in text


@pytest.mark.parametrize("width", [79, 60, 30, 5])
def test_narrow_terminals_keep_what_matters(sweep, width):
    text = shown(sweep, width)
    assert all(len(line) <= width for line in text.splitlines())
    if width >= 60:
        assert "difference" in text
    if width == 79:
        assert "98,520" in text


def test_ascii_terminals_get_ascii(sweep):
    text = shown(sweep, 120, encoding="ascii")
    assert "+-" in text
    assert "?" not in text.replace(sweep.title, "")


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
    with terminal.Progress(console, clock=clock) as progress:
        progress.note("1 of 3 points are done already")
        for k in range(1, points + 1):
            progress.point(k, points, f"cbam-{k}")
            for i in range(1, updates + 1):
                clock.now += 4
                progress.update(
                    step=10 * i,
                    steps=60,
                    loss=2.0 / i,
                    images_per_s=2512.4,
                    seconds_left=4.0 * (updates - i),
                )
            progress.point_done(f"cbam-{k}: test error 3.20 %")


def test_in_a_file_progress_is_a_line_now_and_then(clock):
    file = io.StringIO()
    run(rich.console.Console(file=file, width=40), clock)
    assert file.getvalue().splitlines() == [
        "1 of 3 points are done already",
        "[1/2] cbam-1, step 10 of 60, loss 2.000, 2,512 images/s, 20 s left,"
        " 44 s for all",
        "[1/2] cbam-1, step 40 of 60, loss 0.500, 2,512 images/s, 8 s left,"
        " 32 s for all",
        "[1/2] cbam-1: test error 3.20 % (24 s)",
        "[2/2] cbam-2, step 10 of 60, loss 2.000, 2,512 images/s, 20 s left",
        "[2/2] cbam-2, step 40 of 60, loss 0.500, 2,512 images/s, 8 s left",
        "[2/2] cbam-2: test error 3.20 % (24 s)",
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
    with terminal.Progress(console, clock=clock) as progress:
        progress.point(2, 5, "cbam-1")
        assert len(console.render_lines(progress._line())) == 1
        progress.update(
            step=30, steps=60, loss=0.5, images_per_s=900.0, seconds_left=30.0
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
    with terminal.Progress(rich.console.Console(file=file), clock=clock) as progress:
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
        terminal.Progress(console, clock=clock) as progress,
    ):
        progress.point(1, 1, "a")
        raise KeyboardInterrupt
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


def test_names_with_brackets_are_shown_as_they_are(clock):
    file = io.StringIO()
    with terminal.Progress(rich.console.Console(file=file), clock=clock) as progress:
        progress.point(1, 1, "x[bold]")
        progress.point_done("x[bold]: done")
    assert "x[bold]: done" in file.getvalue()


def test_an_odd_title_is_not_markup(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=1, images=1)
    record = json.loads((root / "experiment.json").read_text())
    record["title"] = "a [/b] c"
    (root / "experiment.json").write_text(json.dumps(record))
    assert "a [/b] c" in shown(results.read(root), 100)

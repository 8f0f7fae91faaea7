"""Tables of sweeps as they come out on terminals of any width."""

import io
import json

import pytest
import rich.console

from attn.report.analyse import numbers
from attn.report.formats import console
from attn.report.read import results
from tests.report import papers, synthetic


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("terminal") / "sweep"
    names = ["none", "squeeze_excite", "spatial_transformer"]
    synthetic.sweep(root, names, seeds=3, images=1)
    (root / "squeeze_excite-2" / "result.json").unlink()
    return results.read(root)


def shown(sweep, width, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console.show([sweep], rich.console.Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_table_has_every_column_where_there_is_room(sweep):
    text = shown(sweep, 120)
    head = next(line for line in text.splitlines() if line.startswith("attention"))
    for name in ("seeds", "error, %", "difference", "parameters", "MACs, M", "ms/step"):
        assert name in head
    row = next(line for line in text.splitlines() if line.startswith("spatial_tr"))
    for part in ("98,520", "7.01", "better", numbers.PLUS_MINUS, numbers.MINUS):
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


def test_an_odd_title_is_not_markup(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=1, images=1)
    record = json.loads((root / "experiment.json").read_text())
    record["title"] = "a [/b] c"
    (root / "experiment.json").write_text(json.dumps(record))
    assert "a [/b] c" in shown(results.read(root), 100)


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    root = tmp_path_factory.mktemp("console") / "sweep"
    papers.transformers(root, ["FCN"], ["none", "affine"], images=1, snapshots=())
    return results.read(root)


def test_the_papers_table_stands_below_ours(paper):
    text = shown(paper, 120)
    head = "Ours (and Jaderberg et al. 2015, Table 1): test error, %, by distortion"
    assert text.index("FCN      none         e") < text.index(head)
    line = next(line for line in text.splitlines() if line.startswith("FCN · affine"))
    assert [f"({value})" in line for value in (1.2, 0.8, 1.5, 2.7)] == [True] * 4
    assert line.count(numbers.PLUS_MINUS) == 4
    text = " ".join(text.split())
    assert "Not among our points: CNN · none, FCN · projective, FCN · thin" in text
    assert "pairs of rows that the paper orders within a column" in text


@pytest.mark.parametrize("width", [60, 44])
def test_on_narrow_terminals_the_papers_table_has_no_intervals(paper, width):
    text = shown(paper, width)
    assert all(len(line) <= width for line in text.splitlines())
    beside = text[text.index("Ours (and") : text.index("Of the")]
    assert numbers.PLUS_MINUS not in beside
    assert "(2.7)" in beside
    if width == 60:
        assert "FCN · affine" in beside

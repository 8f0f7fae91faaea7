"""Channel gates by class: the spread between classes, and what is drawn."""

import json
import re

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.draw import style
from attn.report.read import results
from attn.report.sections import class_gates
from attn.report.sections.budget import Budget
from tests.report import papers


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("gates") / "sweep"
    return papers.reductions(root, ["none", 2, 4, 8, 16, 32], seeds=1, images=1)


def drawn(root):
    rows = table.rows(results.read(root))
    return list(zip(rows, style.styles(rows), strict=True))


def test_the_spread_is_the_deviation_between_classes_over_channels(sweep):
    gates, problem = class_gates.read(results.read(sweep).points[1])
    assert problem is None
    assert gates.paths[:2] == ("stage1/block0/residual", "stage1/block1/residual")
    for mean, spread in zip(gates.means, gates.spreads, strict=True):
        classes, channels = mean.shape
        total = 0.0
        for c in range(channels):
            middle = sum(mean[k, c] for k in range(classes)) / classes
            total += (
                sum((mean[k, c] - middle) ** 2 for k in range(classes)) / 10
            ) ** 0.5
        assert spread == pytest.approx(total / channels)
    assert gates.spreads[-1] > gates.spreads[3] > gates.spreads[0]


def test_each_depth_has_a_plot_with_some_classes_and_all(sweep):
    gates, _ = class_gates.read(results.read(sweep).points[1])
    plots = class_gates.by_class(gates, "reduction 2")
    assert len(plots) == class_gates.MOST_DEPTHS
    assert "stage1/block0" in plots[0]
    assert "stage3/block2" in plots[-1]
    for plot in plots:
        lines = re.findall(r"stroke: (#\w{6}); stroke-width: 0.8", plot)
        assert len({line for line in lines}) == class_gates.CLASSES
        assert "stroke: currentColor; stroke-width: 1.8" in plot
    assert [name for name, _ in class_gates.chosen(gates.classes)] == list("02479")


def test_rows_beyond_some_are_in_the_plot_of_the_spread_only(sweep):
    section = class_gates.section(drawn(sweep), Budget(0))
    assert len(section.blocks) == class_gates.MOST_ROWS
    assert section.unshown == ("reduction 32",)
    labels = [row.label for row, _ in section.legend]
    assert labels == [f"reduction {r}" for r in (2, 4, 8, 16, 32)]
    for _, row_style in section.legend:
        assert row_style.colour.lower() in section.spread.lower()


def test_a_class_without_an_example_spoils_nothing(tmp_path):
    mean = np.array([[0.1, 0.9], [np.nan, np.nan], [0.3, 0.5]])
    index = [{"path": "a/channel_gate", "key": "mean0", "channels": 2}]
    (tmp_path / "p").mkdir()
    np.savez(
        tmp_path / "p" / "gates.npz",
        mean0=mean,
        classes=list("xyz"),
        index=json.dumps(index),
    )
    point = results.Point("p", {}, tmp_path / "p", {}, {}, {}, None, None)
    gates, _ = class_gates.read(point)
    assert gates.spreads == [pytest.approx((0.1 + 0.2) / 2)]
    assert len(class_gates.by_class(gates, "p")) == 1


@pytest.mark.parametrize("damage", ["cut", "shape"])
def test_a_damaged_file_is_said(tmp_path, damage):
    root = papers.reductions(tmp_path / "s", ["none", 2, 4], seeds=1, images=1)
    path = root / "2-0" / "gates.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **(arrays | {"mean3": np.zeros(4)}))
    section = class_gates.section(drawn(root), Budget(0))
    assert [block.row.label for block in section.blocks] == ["reduction 4"]
    assert "2-0: its gates.npz cannot be read" in section.remarks[0]


def test_without_gates_there_is_no_section(tmp_path):
    root = papers.reductions(tmp_path / "s", ["none"], seeds=1, images=1)
    assert class_gates.section(drawn(root), Budget(0)) is None

"""Plots as SVG, their looks, and labels that keep off each other."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.analyse.statistics import Interval
from attn.report.draw import curves, labels, scatter, style
from attn.report.read import results
from tests.report import synthetic


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp("plots") / "sweep"
    synthetic.sweep(root, ["none", "cbam", "non_local"], seeds=2, images=1)
    (root / "non_local-1" / "result.json").unlink()
    return drawn(results.read(root))


def drawn(sweep):
    rows = table.rows(sweep)
    return list(zip(rows, style.styles(rows), strict=True))


def test_learning_curves_have_a_line_for_each_row(rows):
    (svg,) = curves.learning(rows, "test", "error", "test error, %")
    ElementTree.fromstring(svg)
    for _, look in rows:
        assert look.colour.lower() in svg.lower()
    assert "currentColor" in svg
    assert style.INK not in svg
    assert "stroke-dasharray" in svg  # the point that is not finished
    assert 'width="' not in svg.split(">")[0]  # the page decides


def test_plots_of_one_input_are_the_same(rows):
    first = scatter.against(rows, "macs", "MACs")
    assert first == scatter.against(rows, "macs", "MACs")


def test_costs_name_every_row_and_their_unit(rows):
    (svg,) = scatter.against(rows, "parameters", "parameters")
    texts = [element.text for element in ElementTree.fromstring(svg).iter("text")]
    assert {"none", "cbam", "non_local", "parameters (k)"} <= set(texts)


def test_nothing_to_draw_is_no_plot(rows):
    assert curves.learning([], "train", "loss", "loss") == []
    assert curves.learning(rows, "validation", "loss", "loss") == []
    assert scatter.against([], "macs", "MACs") == []


def test_eighteen_rows_look_different(tmp_path):
    root = tmp_path / "s"
    synthetic.sweep(root, ["none"], seeds=1, images=1)
    (base,) = table.rows(results.read(root))
    others = [
        dataclasses.replace(base, baseline=False, kind=f"kind {i}") for i in range(17)
    ]
    looks = style.styles([base, *others])
    assert len(set(looks)) == 18
    assert looks[0].colour == style.BASELINE


def test_whisker_puts_the_interval_on_a_common_axis():
    svg = scatter.whisker(Interval(-1.0, 0.5, 3), reach=2.0, colour="#123456")
    line = ElementTree.fromstring(svg)[1].attrib
    dot = ElementTree.fromstring(svg)[2].attrib
    assert float(line["x1"]) < float(dot["cx"]) < float(line["x2"]) < 60
    assert float(dot["cx"]) == pytest.approx(60 - 56 / 2)


def overlaps(centres, sizes):
    boxes = [
        (np.array(c) - np.array(s) / 2, np.array(c) + np.array(s) / 2)
        for c, s in zip(centres, sizes, strict=True)
    ]
    return [
        (i, j)
        for i in range(len(boxes))
        for j in range(i)
        if np.all(
            np.minimum(boxes[i][1], boxes[j][1]) > np.maximum(boxes[i][0], boxes[j][0])
        )
    ]


def test_labels_of_crowded_points_do_not_overlap():
    rng = np.random.default_rng(1)
    anchors = [tuple(place) for place in rng.normal((120, 90), (25, 12), (10, 2))]
    sizes = [(60.0, 11.0)] * len(anchors)
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in anchors]
    bounds = (0, 0, 300, 200)
    beside = [(x + 37, y) for x, y in anchors]
    assert overlaps(beside, sizes)
    centres = labels.place(anchors, sizes, marks, bounds)
    assert not overlaps(centres, sizes)
    for (x, y), (width, height) in zip(centres, sizes, strict=True):
        assert width / 2 <= x <= 300 - width / 2
        assert height / 2 <= y <= 200 - height / 2


def test_a_lone_label_stays_near_and_no_labels_are_no_error():
    (centre,) = labels.place([(50, 50)], [(20, 10)], [], (0, 0, 100, 100))
    assert np.hypot(*(np.array(centre) - 50)) < 20
    assert labels.place([], [], [], (0, 0, 1, 1)) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.003, "0.003"), (3e-4, "3e-4"), (1e-5, "1e-5"), (20000, "20000"), (5e6, "5e6")],
)
def test_numbers_of_an_axis_are_short(value, said):
    assert style.short(value) == said


@pytest.mark.parametrize(
    "ends", [(90.05, 90.15), (0.0, 1.0), (-0.0004, 0.0003), (10_000.01, 10_000.02)]
)
def test_numbers_beside_an_axis_are_whole_and_within(ends):
    with style.axes(*style.WIDE) as axes:
        axes.plot([0, 142.5], ends)
        axes.set_ylim(*ends)
        axes.set_xlim(0, 142.5)
        axes.set_xticks([0, 142.5])
        svg = style.svg(axes, "x")
        box = axes.get_tightbbox()
        width = axes.figure.bbox.width
    assert box.x0 >= 0 and box.x1 <= width
    shown = [float(text.replace("\N{MINUS SIGN}", "-")) for text in labels_of(svg)]
    assert 142.5 in shown
    assert sum(ends[0] - 1e-9 <= number <= ends[1] + 1e-9 for number in shown) >= 3


def labels_of(svg):
    texts = [e.text for e in ElementTree.fromstring(svg).iter("text")]
    return [text for text in texts if re.fullmatch(r"[\N{MINUS SIGN}-]?[\d.]+", text)]


@pytest.mark.parametrize(
    ("last", "wanted"), [(1, ["1"]), (2, ["1", "2"]), (3, ["1", "2", "3"])]
)
def test_an_axis_of_modules_has_whole_numbers(last, wanted):
    with style.axes(*style.WIDE) as axes:
        axes.plot(range(1, last + 1), [0.5] * last)
        axes.set_yticks([])
        style.whole_numbers(axes, last)
        assert labels_of(style.svg(axes, "x")) == wanted


def test_what_is_never_below_zero_has_an_axis_from_there(tmp_path):
    rows = [(r, s) for r, s in drawn(results.read(zeros(tmp_path / "s")))]
    (svg,) = curves.learning(rows, "test", "error", "test error, %")
    assert not any("\N{MINUS SIGN}" in text for text in labels_of(svg))


def zeros(root):
    synthetic.sweep(root, ["none"], seeds=1, images=1)
    for path in root.glob("*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [line | ({"error": 0.0} if "error" in line else {}) for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.mark.parametrize("values", [[18.2, 19.5], [0.0, 0.0], [3.0]])
def test_an_axis_from_zero_has_room_above_the_highest(values):
    with style.axes(3, 2) as axes:
        axes.plot(values, marker="o")
        style.from_zero(axes)
        low, high = axes.get_ylim()
    assert low == 0 and high - max(values) >= 0.04 * high > 0

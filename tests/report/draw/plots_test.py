"""Plots as SVG, their looks, and labels that keep off each other."""

import dataclasses
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

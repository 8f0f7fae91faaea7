"""Measures by depth: means over seeds, and what is left out."""

import json
import re

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.draw import style
from attn.report.read import results
from attn.report.sections import measures
from attn.report.sections.budget import Budget
from tests.report import synthetic

PATHS = ("stage1/block0/residual", "stage2/block0/residual")


@pytest.fixture
def sweep(tmp_path):
    return synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=2, images=1)


def drawn(root):
    rows = table.rows(results.read(root))
    return list(zip(rows, style.styles(rows), strict=True))


def write(root, seed, values, **more):
    """The record of a point: two measures of each attention."""
    attentions = [
        {"path": path, "attention_inside": inside, "attention_entropy": even}
        for path, (inside, even) in zip(PATHS, values, strict=True)
    ]
    record = {"split": "test", "examples": 9, "attentions": attentions, **more}
    (root / f"cbam-{seed}" / "measures.json").write_text(json.dumps(record))


def test_rows_have_the_mean_over_their_seeds(sweep):
    write(sweep, 0, [(10.0, 0.5), (20.0, 0.25)], object_area=12.0)
    write(sweep, 1, [(30.0, 0.75), (60.0, 0.25)], object_area=14.0)
    found = measures.section(drawn(sweep), Budget(0))
    assert [row.label for row, _ in found.legend] == ["cbam"]
    assert found.area == 13.0
    assert len(found.plots) == 2
    records = [measures.read(p)[0] for p in results.read(sweep).points[2:]]
    ((row, row_style),) = found.legend
    one = measures._measured(row, row_style, records)
    np.testing.assert_array_equal(one.values["attention_inside"], [20, 40])
    np.testing.assert_array_equal(one.values["attention_entropy"], [0.625, 0.25])
    dotted = [len(re.findall(r"stroke-dasharray: 0.9", svg)) for svg in found.plots]
    assert [count > 0 for count in dotted] == [True, False]


def test_without_objects_there_is_no_line_of_their_area(sweep):
    write(sweep, 0, [(10.0, 0.5), (20.0, 0.25)])
    assert measures.section(drawn(sweep), Budget(0)).area is None


def test_a_sweep_without_records_has_no_section(sweep):
    assert measures.section(drawn(sweep), Budget(0)) is None


@pytest.mark.parametrize("text", ["", "[]", '{"attentions": [{"path": 3}]}'])
def test_a_damaged_record_is_said(sweep, text):
    write(sweep, 0, [(10.0, 0.5), (20.0, 0.25)])
    (sweep / "cbam-1" / "measures.json").write_text(text)
    (remark,) = measures.section(drawn(sweep), Budget(0)).remarks
    assert remark.startswith("cbam-1: its measures.json cannot be read")

"""Areas of object queries: which are shown, and where their dots are."""

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.draw import pictures, style
from attn.report.formats import page
from attn.report.read import results
from attn.report.sections import query_areas
from attn.report.sections.budget import Budget
from tests.report import papers


@pytest.fixture
def root(tmp_path):
    return papers.reductions(tmp_path / "sweep", ["none", 4], seeds=1, images=1)


def drawn(root):
    rows = table.rows(results.read(root))
    return list(zip(rows, style.styles(rows), strict=True))


def written(root, queries=30, count=50):
    """Boxes of which query q finds something on q + 1 of the images, and the file."""
    random = np.random.default_rng(0)
    boxes = random.uniform(0.1, 0.9, (count, queries, 4)).astype(np.float16)
    often = np.arange(count)[:, None] <= np.arange(queries)
    (point, *_) = sorted(path.parent for path in root.glob("*/result.json"))
    path = point / query_areas.FILE
    np.savez(path, boxes=boxes, scores=np.where(often, 0.8, 0.1))
    return path


def test_the_queries_that_find_most_are_shown_in_their_order(root):
    written(root)
    (block,) = query_areas.section(drawn(root), Budget(10**7)).blocks
    assert [query.number for query in block.queries] == list(range(10, 30))
    assert [query.share for query in block.queries][:2] == ["22 %", "24 %"]
    assert block.remarks == ("20 of 30 queries, those that find most",)
    text = page.render([results.read(root)])
    assert "Object queries" in text and "query 10 <small>22 %" in text


def test_boxes_are_small_or_wide_or_upright():
    boxes = [(0.5, 0.5, 0.2, 0.3), (0.5, 0.5, 0.5, 0.3), (0.1, 0.1, 0.2, 0.4)]
    assert query_areas.kinds(np.array(boxes)) == ["small", "wide", "upright"]


def test_dots_are_at_the_centres_in_their_colours():
    places = np.array([[0.25, 0.5], [0.75, 0.125]])
    picture = np.asarray(pictures.query_area(places, ["#ff0000", "#0000ff"]), int)
    side = pictures.SIDE
    for (x, y), channel in zip(places, (0, 2), strict=True):
        pixel = picture[int(y * side), int(x * side)]
        others = np.delete(pixel, channel)
        assert pixel[channel] > 240 and (others < 60).all()
    inner = picture[4:-4, 4:-4]
    assert 4 < (inner.min(axis=-1) < 128).sum() < 40


def test_a_damaged_file_is_said_and_rows_without_are_not_shown(root):
    assert query_areas.section(drawn(root), Budget(10**7)) is None
    written(root).write_bytes(b"nothing")
    (block,) = query_areas.section(drawn(root), Budget(10**7)).blocks
    assert not block.queries and "query_areas.npz cannot be read" in block.remarks[0]

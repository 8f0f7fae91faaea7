"""Canvases: which images share a batch, and the canvas that holds them."""

import numpy as np
import pytest

from attn.data import canvases, order

SIZES = np.random.default_rng(0).integers(200, 1300, (157, 2))
BATCH = 4


def drawn(seed, rows, first):
    """Sizes that differ each time an image comes."""
    scale = order.uniform(seed, order.TRAIN, first, len(rows), 1, "scale")
    return np.rint(SIZES[rows] * (0.5 + scale)).astype(np.int64)


def made():
    return canvases.plan(len(SIZES), drawn, SIZES)


def test_a_canvas_holds_its_images_and_is_one_of_a_few():
    plan, seen, filled = made(), set(), []
    sizes = drawn(3, order.rows(3, 0, 40 * BATCH * canvases.GROUP, 157), 0)
    for number in range(40 * canvases.GROUP):
        rows = plan.training(3, number, BATCH, (0, 1))
        images = sizes[rows.places]
        np.testing.assert_array_equal(
            rows.rows, order.rows(3, 0, len(sizes), 157)[rows.places]
        )
        assert (images <= rows.length).all() and len(rows.rows) == BATCH
        filled.append((images.prod(axis=1) / np.prod(rows.length)).mean())
        seen.add(rows.length)
    assert len(seen) <= canvases.SIDES**2
    assert all(side % canvases.MULTIPLE == 0 for size in seen for side in size)
    unsorted = sizes.reshape(-1, BATCH, 2)
    canvas = canvases.fitting(unsorted.max(axis=1), plan.sides)
    share = unsorted.prod(axis=2) / canvas.prod(axis=1)[:, None]
    assert np.mean(filled) > 1.3 * share.mean()


def test_every_image_comes_once_in_each_epoch():
    plan = made()
    count = canvases.GROUP * 157
    places = [plan.training(1, n, BATCH, (0, 1)).places for n in range(count)]
    assert sorted(np.concatenate(places)) == list(range(count * BATCH))
    group = np.concatenate(places[: canvases.GROUP])
    assert sorted(group) == list(range(canvases.GROUP * BATCH))


def test_batches_of_a_group_come_in_another_order_each_time():
    plan = made()
    turns = [
        [np.prod(plan.training(1, g * canvases.GROUP + k, 8, (0, 1)).length)
         for k in range(canvases.GROUP)]
        for g in range(2)
    ]  # fmt: skip
    assert turns[0] != sorted(turns[0]) and turns[0] != turns[1]


@pytest.mark.parametrize("count", [2, 4])
def test_shards_are_parts_of_the_whole_on_one_canvas(count):
    plan = made()
    for number in (0, 5, 40):
        whole = plan.training(2, number, 8, (0, 1))
        parts = [plan.training(2, number, 8, (i, count)) for i in range(count)]
        for name in ("rows", "places", "weight"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, name))
        assert {part.length for part in parts} == {whole.length}


def test_an_evaluation_shows_every_image_once_on_the_least_canvas():
    plan, seen = made(), []
    sides = {side for size in plan.evaluated.lengths for side in size}
    for number in range(plan.count(BATCH)):
        rows = plan.evaluation(number, BATCH, (0, 1))
        real = rows.rows[rows.weight > 0]
        seen += real.tolist()
        for image in SIZES[real]:
            least = [min(s for s in sides if s >= side) for side in image]
            assert list(rows.length) == least
    assert sorted(seen) == list(range(157))
    assert plan.largest == max(plan.evaluated.lengths, key=np.prod)


def test_an_image_beyond_all_sides_has_a_canvas_of_its_own():
    found = canvases.fitting(np.array([[5, 65], [64, 129]]), (32, 64))
    assert found.tolist() == [[32, 96], [64, 160]]

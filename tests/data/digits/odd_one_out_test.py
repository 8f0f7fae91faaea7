"""The odd one out against a loop over pixels in float64, and what it promises."""

import numpy as np
import pytest

from attn.data.digits.odd_one_out import DRAWS, odd_one_out
from attn.data.digits.pool import Pool
from attn.data.order import uniform
from tests.data.digits import pool

LABELS = (np.arange(24) * 7 % 10).astype(np.int32)
LAST = 1 - 2**-53


def draws_of(count, seed=1):
    return uniform(seed, 1, 0, count, sum(DRAWS.values()))


def chosen(row, draws, labels=LABELS):
    """The rows of the other three digits, by lists."""
    rest = [k for d in range(10) for k in np.flatnonzero(labels == d)]
    first = [k for k in rest if labels[k] != labels[row]]
    first = first[int(draws[0] * len(first))]
    alike = [k for k in rest if labels[k] == labels[first]]
    return [first, *(alike[int(draw * len(alike))] for draw in draws[1:3])]


def loop(digits, row, draws, side):
    """One canvas, and where the ink of its odd digit is."""
    others, quarter, room = chosen(row, draws), int(4 * draws[3]), side // 2
    image, objects = np.zeros((side, side)), np.zeros((side, side), bool)
    for place in range(4):
        one = digits[[row, *others][(place - quarter) % 4]]
        left, top, width, height = pool.frame(one)
        scale = round(0.38 * side) / max(width, height)
        across, down = draws[4 + 2 * place : 6 + 2 * place]
        x0 = across * (room - scale * width) - 0.5
        y0 = down * (room - scale * height) - 0.5
        corner = place // 2 * room, place % 2 * room
        for y, x in np.ndindex(room, room):
            at = (x - x0) / scale + left - 0.5, (y - y0) / scale + top - 0.5
            value = pool.sample(one[..., 0], *at)
            image[corner[0] + y, corner[1] + x] = value
            objects[corner[0] + y, corner[1] + x] = place == quarter and value >= 64
    return image, objects


@pytest.mark.parametrize("side", [36, 33])
def test_a_canvas_equals_the_loop_over_pixels(side):
    digits, rows = pool.digits(fringe=60), np.array([3, 19, 0, 23])
    draws = draws_of(4)
    draws[:, 3] = [0.1, 0.3, 0.6, 0.8]  # one of each quarter
    result = odd_one_out(Pool(digits, LABELS), rows, draws, side)
    assert result["image"].dtype == np.float32 and result["label"].dtype == np.int32
    np.testing.assert_array_equal(result["label"], LABELS[rows])
    for i, (row, draw) in enumerate(zip(rows, draws, strict=True)):
        image, objects = loop(digits, row, draw, side)
        np.testing.assert_allclose(result["image"][i, ..., 0], image, atol=0.05)
        # A value may be rounded to either side of what counts as ink.
        sure = np.abs(image - 64) > 0.1
        np.testing.assert_array_equal(result["objects"][i][sure], objects[sure])


def test_the_others_are_alike_and_of_another_class():
    # One grey a class, so that a canvas tells the classes of its quarters.
    digits = np.zeros((24, 28, 28, 1), np.uint8)
    digits[:, 8:20, 8:20] = 70 + 15 * LABELS[:, None, None, None]
    rows = np.arange(2000) % 24
    result = odd_one_out(Pool(digits, LABELS), rows, draws_of(2000))
    greys = result["image"].reshape(-1, 2, 18, 2, 18).max(axis=(2, 4))
    classes = np.rint((greys.reshape(-1, 4) - 70) / 15).astype(int)
    odd = result["objects"].reshape(-1, 2, 18, 2, 18).any(axis=(2, 4)).reshape(-1, 4)
    np.testing.assert_array_equal(odd.sum(axis=1), 1)
    np.testing.assert_array_equal(classes[odd], LABELS[rows])
    alike = classes[~odd].reshape(-1, 3)
    assert (alike == alike[:, :1]).all() and (alike[:, 0] != LABELS[rows]).all()
    assert set(alike[:, 0]) == set(range(10))
    np.testing.assert_allclose(odd.mean(axis=0), 0.25, atol=0.03)


@pytest.mark.parametrize("place", [0, LAST])
def test_digits_reach_the_edges_of_their_quarters_and_stay_inside(place):
    draws = draws_of(24)
    draws[:, 4:] = place
    image = odd_one_out(Pool(pool.digits(), LABELS), np.arange(24), draws)["image"]
    quarters = image.reshape(24, 2, 18, 2, 18).transpose(0, 1, 3, 2, 4)
    if place:
        quarters = quarters[..., ::-1, ::-1]
    for edge, far in (
        (quarters[..., 0], quarters[..., 14:]),
        (quarters[..., 0, :], quarters[..., 14:, :]),
    ):
        assert (edge.max(axis=-1) > 32).mean() > 0.9
        assert far.max() < 64  # beyond the 14 pixels of ink it fades out


def test_a_split_of_few_classes_has_what_it_has():
    digits, rows, draws = pool.digits(), np.arange(24), draws_of(24)
    labels = np.where(LABELS < 5, 2, 7).astype(np.int32)
    result = odd_one_out(Pool(digits, labels), rows, draws)
    assert set(result["label"]) == {2, 7}
    one = odd_one_out(Pool(digits, np.full(24, 3, np.int32)), rows, draws)
    assert (one["label"] == 3).all() and (one["image"].max(axis=(1, 2, 3)) > 64).all()

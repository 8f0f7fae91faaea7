"""Compositions against loops over pixels in float64, and what they promise."""

import itertools

import numpy as np
import pytest

from attn.data.digits import compositions
from attn.data.digits.compositions import COMPOSITIONS
from attn.data.digits.distortions import DISTORTIONS
from attn.data.digits.pool import Pool
from attn.data.order import uniform
from tests.data.digits import pool

LABELS = (np.arange(24) * 7 % 10).astype(np.int32)
LAST = 1 - 2**-53


def draws_of(name, count, seed=1):
    return uniform(seed, 1, 0, count, COMPOSITIONS[name].draws)


def test_addition_is_two_distorted_digits_in_two_channels():
    digits, rows = pool.digits(), np.array([3, 19, 0, 23, 3])
    draws = draws_of("addition", 5)
    result = compositions.addition(Pool(digits, LABELS), rows, draws)
    assert result["image"].shape == (5, 42, 42, 2)
    assert result["image"].dtype == np.float32 and result["label"].dtype == np.int32
    rts = DISTORTIONS["rts"].apply
    for i, (row, draw) in enumerate(zip(rows, draws, strict=True)):
        (other,) = pool.others(row, draw[8:], 24)
        assert result["label"][i] == LABELS[row] + LABELS[other]
        for channel, (of, some) in enumerate(((row, draw[:4]), (other, draw[4:8]))):
            expected = rts(digits, np.array([of]), some[None])[0, ..., 0]
            np.testing.assert_array_equal(result["image"][i, ..., channel], expected)


def test_sums_have_every_value_and_a_name():
    labels = np.arange(10, dtype=np.int32)
    draws, rows = draws_of("addition", 2000), np.arange(2000) % 10
    sums = compositions.addition(Pool(pool.digits(10), labels), rows, draws)["label"]
    # Never twice the same row, so that of ten different digits 0 and 18 are not met.
    assert set(sums) == set(range(1, 18))
    assert COMPOSITIONS["addition"].class_names == tuple(str(n) for n in range(19))


def number(digits, row, draws, side):
    """Image and label of one number: a strip by slices, then complex numbers."""
    count = 1 + int(5 * draws[0])
    chosen = [row, *pool.others(row, draws[1:5], len(digits))][:count]
    strip, edge, frames = np.zeros((28, 400)), 100, []
    for place, one in enumerate(chosen):
        left, top, width, height = pool.frame(digits[one])
        at = strip[:, edge - left : edge - left + 28]
        np.maximum(at, digits[one, ..., 0], out=at)
        frames.append((edge, top, edge + width, top + height))
        if place < 4:
            edge += width + 1 + int(4 * draws[5 + place])
    left, top = frames[0][0], min(f[1] for f in frames)
    right, bottom = frames[-1][2], max(f[3] for f in frames)

    turn = np.exp(1j * np.deg2rad(20 * draws[9] - 10))
    box = complex(right - left + 2, bottom - top + 2)
    corners = [z * turn.conjugate() for z in (box, box.conjugate())]
    span = max(abs(z.real) for z in corners), max(abs(z.imag) for z in corners)
    scale = min(side / max(span), side / 32) * (0.8 + 0.2 * draws[10])
    moved = [(side - scale * s) * (d - 0.5) for s, d in zip(span, draws[11:], strict=1)]
    middle = complex(*moved) + complex(side - 1, side - 1) / 2
    centre = complex(left + right - 1, top + bottom - 1) / 2
    image = np.zeros((side, side))
    for y, x in np.ndindex(side, side):
        z = (complex(x, y) - middle) * turn / scale + centre
        image[y, x] = pool.sample(strip, z.real, z.imag)
    return image, [*LABELS[chosen], *[10] * (5 - count)]


@pytest.mark.parametrize("side", [64, 35])
def test_a_number_equals_the_loop_over_pixels(side):
    digits, rows = pool.digits(fringe=60), np.array([3, 19, 0, 23, 7])
    draws = draws_of("number", 5)
    draws[:, 0] = [0.1, 0.3, 0.5, 0.7, 0.9]  # one of each length
    result = compositions.number(Pool(digits, LABELS), rows, draws, side)
    assert result["image"].dtype == np.float32 and result["label"].dtype == np.int32
    assert result["image"].shape == (5, side, side, 1)
    for i, (row, draw) in enumerate(zip(rows, draws, strict=True)):
        image, label = number(digits, row, draw, side)
        np.testing.assert_array_equal(result["label"][i], label)
        np.testing.assert_allclose(result["image"][i, ..., 0], image, atol=0.05)


def test_numbers_of_every_length_come_equally_often_and_end_in_none():
    rows, draws = np.arange(4000) % 24, draws_of("number", 4000)
    label = compositions.number(Pool(pool.digits(), LABELS), rows, draws, 32)["label"]
    length = (label < 10).sum(axis=1)
    np.testing.assert_allclose(np.bincount(length)[1:] / 4000, 0.2, atol=0.03)
    assert ((label == 10) == (np.arange(5) >= length[:, None])).all()
    np.testing.assert_array_equal(label[:, 0], LABELS[rows])


CORNERS = list(itertools.product([0, 0.5, LAST], [0, LAST], [0, 1]))


@pytest.mark.parametrize("corner", CORNERS)
def test_a_number_stays_on_the_canvas_and_reaches_its_edges(corner):
    angle, place, count = corner
    draws = draws_of("number", 24)
    draws[:, 0], draws[:, 9], draws[:, 11:] = count * LAST, angle, place
    image = compositions.number(Pool(pool.digits(), LABELS), np.arange(24), draws)[
        "image"
    ]
    first = image[:, :, 0] if place == 0 else image[:, :, -1]
    # At most half a pixel of what fades out may be cut off.
    assert first.max() <= 128 and (count or first.max() == 0)
    near = image[:, :, :4] if place == 0 else image[:, :, -4:]
    assert (near.max(axis=(1, 2, 3)) > 32).mean() > 0.9


@pytest.mark.parametrize("name", sorted(COMPOSITIONS))
def test_an_example_does_not_depend_on_its_batch(name):
    split = Pool(pool.digits(), LABELS)
    rows, draws = np.arange(40) % 24, draws_of(name, 40)
    apply = COMPOSITIONS[name].apply
    whole = apply(split, rows, draws)
    for part in (slice(0, 40), slice(33, 34), slice(3, 7)):
        some = apply(split, rows[part], draws[part])
        assert some.keys() == whole.keys()
        for key in whole:
            np.testing.assert_array_equal(some[key], whole[key][part], err_msg=key)
    other = apply(split, rows, draws_of(name, 40, seed=2))
    assert not np.array_equal(other["image"], whole["image"])


@pytest.mark.parametrize("name", sorted(COMPOSITIONS))
def test_the_table_says_what_is_made(name):
    entry = COMPOSITIONS[name]
    split = Pool(pool.digits(), LABELS)
    apply = lambda e: e.apply(split, np.arange(3), draws_of(name, 3))
    image = apply(entry)["image"]
    assert image.shape == (3, entry.side, entry.side, entry.channels)
    assert image.min() >= 0 and 200 < image.max() <= 255
    if entry.free:
        changed = compositions.create(name, 33)
        assert apply(changed)["image"].shape == (3, 33, 33, entry.channels)
    else:
        with pytest.raises(ValueError, match=r"has 42 pixels: leave canvas None"):
            compositions.create(name, 33)


def test_what_does_not_exist_names_what_does():
    with pytest.raises(
        ValueError, match=r"'numbers'; did you mean 'number'\?.*none, a"
    ):
        compositions.create("numbers")
    with pytest.raises(ValueError, match=r"canvas must be 32 pixels or more, got 31"):
        compositions.create("scene", 31)

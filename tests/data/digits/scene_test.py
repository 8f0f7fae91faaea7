"""Scenes: their pictures against a loop over pixels, and boxes, labels, captions
against the pictures and each other."""

import colorsys
import re

import numpy as np
import pytest
from scipy.interpolate import BSpline

from attn.data import textures
from attn.data.digits import scene as scenes
from attn.data.digits.pool import Pool
from attn.data.order import uniform
from tests.data.digits import pool

LABELS = (np.arange(24) * 7 % 10).astype(np.int32)
COUNT = 300


def made(digits, count=COUNT, side=64, labels=LABELS, seed=1):
    rows = np.arange(count) % len(digits)
    draws = uniform(seed, 1, 0, count, sum(scenes.DRAWS.values()))
    return scenes.scene(Pool(digits, labels), rows, draws, side), draws


def named(draws):
    """The draws of one example by what they are for."""
    found, first = {}, 0
    for name, count in scenes.DRAWS.items():
        found[name] = draws[first : first + count]
        first += count
    assert first == len(draws)
    return found


def cloud(draws, side):
    """The texture by SciPy's splines: [side, side, 3]."""
    knots = draws.reshape(4, 9, 9)
    knots = 350 * (knots[:1] + knots[1:]) / 2 - 100
    at = np.linspace(1, 7, side)
    curve = lambda values: BSpline(np.arange(-2, 11), values, 3)(at)
    smooth = np.apply_along_axis(curve, 2, np.apply_along_axis(curve, 1, knots))
    return np.clip(smooth, 0, 150).transpose(1, 2, 0)


@pytest.mark.parametrize("side", [64, 51])
def test_the_picture_is_coloured_digits_in_their_boxes_over_the_texture(side):
    digits = pool.digits(fringe=60)
    batch, draws = made(digits, 12, side)
    assert batch["image"].dtype == np.float32
    for i in range(12):
        drawn = named(draws[i])
        expected = cloud(drawn["cloud"], side)
        chosen = [i, *pool.others(i, drawn["others"], 24)]
        for k in np.flatnonzero(batch["labels"][i] >= 0):
            shade = 0.1 + 0.5 * drawn["saturation"][k]
            colour = 255 * np.array(colorsys.hsv_to_rgb(drawn["hue"][k], shade, 1))
            left, top, right, bottom = batch["boxes"][i, k].astype(int)
            c, r, width, height = pool.frame(digits[chosen[k]])
            for y, x in np.ndindex(bottom - top, right - left):
                u = c - 0.5 + (x + 0.5) * width / (right - left)
                v = r - 0.5 + (y + 0.5) * height / (bottom - top)
                cover = pool.sample(digits[chosen[k], ..., 0], u, v) / 255
                pixel = expected[top + y, left + x]
                pixel += cover * (colour - pixel)
            assert batch["labels"][i, k] == LABELS[chosen[k]]
        np.testing.assert_allclose(batch["image"][i], expected, atol=0.05)


def test_boxes_hold_all_ink_and_are_tight():
    ink, _ = made(pool.digits())
    bare, _ = made(np.zeros((24, 28, 28, 1), np.uint8))
    assert np.abs(bare["image"].std(axis=(1, 2))).min() > 5  # the texture alone
    changed = np.abs(ink["image"] - bare["image"]).max(axis=-1) > 1
    for mask, boxes, labels in zip(changed, ink["boxes"], ink["labels"], strict=True):
        for x0, y0, x1, y1 in boxes[labels >= 0].astype(int):
            inside = mask[y0:y1, x0:x1]
            assert inside.any(axis=0)[[0, -1]].all()
            assert inside.any(axis=1)[[0, -1]].all()
            mask[y0:y1, x0:x1] = False
        assert not mask.any()


@pytest.mark.parametrize("side", [64, 33, 47])
def test_digits_lie_on_the_canvas_apart_and_one_is_much_the_largest(side):
    batch, _ = made(pool.digits(), side=side)
    boxes, labels = batch["boxes"], batch["labels"]
    assert boxes.dtype == np.float32 and labels.dtype == np.int32
    there = labels >= 0
    count = there.sum(axis=1)
    np.testing.assert_allclose(np.bincount(count)[3:] / COUNT, 1 / 3, atol=0.1)
    assert set(count) == {3, 4, 5} and (there == (np.arange(5) < count[:, None])).all()
    assert (boxes[~there] == 0).all() and (boxes == boxes.astype(int)).all()
    assert boxes.min() == 0 and boxes.max() == side
    sizes = boxes[..., 2:] - boxes[..., :2]
    assert (sizes[there] >= 1).all()
    longest = sizes.max(axis=-1)
    assert longest[:, 0].min() >= 0.42 * side - 1 and longest[:, 0].max() <= side / 2
    small = longest[:, 1:][there[:, 1:]]
    assert small.min() >= 0.17 * side - 1 and small.max() <= 0.24 * side
    for some in boxes:
        cover = np.zeros((side, side), int)
        for x0, y0, x1, y1 in some.astype(int):
            cover[y0:y1, x0:x1] += 1
        assert cover.max() == 1


def test_boxes_have_the_shapes_of_their_digits():
    digits = pool.digits()
    batch, _ = made(digits)
    sizes = batch["boxes"][:, 0, 2:] - batch["boxes"][:, 0, :2]
    for row, (width, height) in enumerate(sizes):
        _, _, w, h = pool.frame(digits[row % 24])
        assert min(width, height) == round(max(width, height) * min(w, h) / max(w, h))
        assert (width > height) == (w > h)


def test_the_largest_is_anywhere_and_so_are_the_others():
    batch, _ = made(pool.digits(), 2000)
    for k in (0, 1):
        boxes = batch["boxes"][:, k]
        heat = np.zeros((64, 64))
        for x0, y0, x1, y1 in boxes.astype(int):
            heat[y0:y1, x0:x1] += 1
        assert (heat > 0).mean() > 0.98, k
        assert heat.max() < 0.75 * len(boxes), k


def test_the_label_is_that_of_the_row_which_is_not_chosen_again():
    labels = np.ones(24, np.int32)
    labels[5] = 7
    rows = np.full(200, 5)
    draws = uniform(1, 1, 0, 200, sum(scenes.DRAWS.values()))
    batch = scenes.scene(Pool(pool.digits(), labels), rows, draws)
    assert (batch["label"] == 7).all() and (batch["labels"][:, 0] == 7).all()
    assert set(batch["labels"][:, 1:].ravel()) == {-1, 1}


def test_colours_are_bright_and_differ():
    assert textures.DIM[1] < 160
    batch, _ = made(np.full((24, 28, 28, 1), 255, np.uint8), 100)
    seen = []
    for image, boxes in zip(batch["image"], batch["boxes"], strict=True):
        x, y = ((boxes[0, :2] + boxes[0, 2:]) / 2).astype(int)
        seen.append(image[y, x])
    seen = np.array(seen)
    np.testing.assert_allclose(seen.max(axis=1), 255, atol=0.01)
    assert set(seen.argmax(axis=1)) == {0, 1, 2} and seen.min() >= 101


def test_captions_say_what_the_boxes_show():
    batch, _ = made(pool.digits())
    assert batch["caption"].dtype == np.int32
    assert batch["caption"].shape == (COUNT, scenes.LENGTH)
    end = scenes.VOCABULARY.index("<end>")
    met = set()
    for caption, boxes, labels in zip(
        batch["caption"], batch["boxes"], batch["labels"], strict=True
    ):
        text = scenes.WORDS.decode(caption)
        head, *rest = re.split(r" (?=above|below|left|right)", text)
        assert head == f"a large {labels[0]}"
        assert len(rest) == (labels >= 0).sum() - 1
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        for k, part in enumerate(rest, start=1):
            dx, dy = centres[k] - centres[0]
            if abs(dy) >= abs(dx):
                relation = "above" if dy > 0 else "below"
            else:
                relation = "left of" if dx > 0 else "right of"
            tail = " and" if k < len(rest) else ""
            assert part == f"{relation} a small {labels[k]}{tail}"
            met.add(relation)
        # one end, straight after the last word, then nothing
        (place,) = np.flatnonzero(caption == end)
        assert (caption[:place] > end).all() and (caption[place + 1 :] == 0).all()
    assert met == {"above", "below", "left of", "right of"}


def test_words_are_a_sentence():
    numbers = scenes.WORDS.encode("a large 3 left of  a small 7")
    assert numbers == [2, 4, 13, 8, 2, 5, 17]
    assert scenes.WORDS.decode([20, *numbers, 1, 0]) == "a large 3 left of a small 7"
    assert scenes.WORDS.words([20, 8, 1]) == ["<start>", "left of", "<end>"]
    assert len(set(scenes.VOCABULARY)) == scenes.WORDS.vocab_size == 21
    for strange in ("a huge 3", "a large 31", "a <end>"):
        with pytest.raises(ValueError, match="no word of the vocabulary begins"):
            scenes.WORDS.encode(strange)


def test_a_model_is_told_the_words_so_far_and_which_digit_each_names():
    batch, _ = made(pool.digits(), 40)
    np.testing.assert_array_equal(batch["target"], batch["caption"])
    np.testing.assert_array_equal(batch["target_mask"], batch["caption_mask"])
    assert (batch["target_in"][:, 0] == scenes.FACTS["start"]).all()
    np.testing.assert_array_equal(batch["target_in"][:, 1:], batch["target"][:, :-1])
    for target, named, labels in zip(
        batch["target"], batch["named"], batch["labels"], strict=True
    ):
        said = scenes.WORDS.words(target)
        digits = [place for place, word in enumerate(said) if word.isdigit()]
        assert digits == np.flatnonzero(named >= 0).tolist()
        for order, place in enumerate(digits):
            assert named[place] == order and int(said[place]) == labels[order]


def test_claims_are_what_a_caption_says():
    said = "a large 3 above a small 7 and left of a small 7"
    found = scenes.claims(said)
    assert found["things"] == {("large", "3"): 1, ("small", "7"): 2}
    assert found["relations"] == {("above", "7"): 1, ("left of", "7"): 1}
    turned = scenes.claims("a large 3 left of a small 7 and above a small 7")
    assert turned == found
    broken = scenes.claims("a above a small and a large 3 3")
    assert broken == {"things": {("large", "3"): 1}, "relations": {}}

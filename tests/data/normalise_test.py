"""Normalisation: its constants, and that pictures undo it."""

import numpy as np
import pytest

from attn.data import normalise


def test_known_sets_have_their_constants_by_channel():
    pixels = np.array([[[255, 0, 51]]], np.uint8)
    result = normalise.normalise(pixels, normalise.statistics("cifar10", 3))
    expected = [(1 - 0.4914) / 0.2470, (0 - 0.4822) / 0.2435, (0.2 - 0.4465) / 0.2616]
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-5)
    assert result.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_other_sets_go_from_minus_one_to_one(channels):
    pixels = np.array([0, 255], np.uint8)[:, None].repeat(channels, 1)
    result = normalise.normalise(pixels, normalise.statistics("something", channels))
    np.testing.assert_allclose(result, [[-1] * channels, [1] * channels], atol=1e-6)


def test_digits_in_several_channels_have_the_constants_of_digits():
    one = normalise.statistics("mnist_5k", 1)
    assert normalise.statistics("mnist_5k", 2) == (one.mean * 2, one.deviation * 2)
    assert normalise.statistics("cifar10", 3).mean == (0.4914, 0.4822, 0.4465)


def test_picture_undoes_it_and_cuts_off():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    known = normalise.statistics("imagenet2012", 3)
    image = normalise.normalise(pixels, known)
    np.testing.assert_allclose(normalise.picture(image, known), pixels / 255, atol=1e-6)
    assert normalise.picture(np.full((1, 1, 3), 99.0), known).max() == 1
    assert normalise.picture(np.full((1, 1, 3), -99.0), known).min() == 0

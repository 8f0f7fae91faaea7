"""Pictures: where rings, bars and grids stand, and what a grid reads."""

import base64
import io

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from attn.ops import sample
from attn.report.draw import pictures
from attn.report.draw.maps import Strip
from tests.report import synthetic


def image(height=28, width=28):
    return np.full((height, width, 3), 0.5, np.float32)


def test_pictures_are_enlarged_without_smoothing():
    values = np.random.default_rng(0).uniform(size=(7, 4, 3)).astype(np.float32)
    picture = pictures.plain(values)
    assert picture.size == (64, 112)
    pixels = np.asarray(picture)[8::16, 8::16]
    np.testing.assert_array_equal(pixels, (values * 255).round())


def test_large_images_are_made_smaller():
    assert pictures.plain(image(448, 224)).size == (56, 112)


def test_heat_is_highest_where_the_map_is():
    share = np.zeros((4, 4))
    share[1, 3] = 1.0
    pixels = np.asarray(pictures.heat(image(), share), int).sum(axis=-1)
    height, width = pixels.shape
    tiles = pixels.reshape(4, height // 4, 4, width // 4).mean(axis=(1, 3))
    assert np.unravel_index(np.argmax(tiles), tiles.shape) == (1, 3)
    assert np.ptp(np.delete(tiles.ravel(), 7)) == 0


def test_the_ring_is_around_the_query():
    query = (0.25, 0.625)
    plain = pictures.heat(image(), np.zeros((4, 4)))
    ringed = pictures.heat(image(), np.zeros((4, 4)), query)
    changed = np.argwhere(np.any(np.asarray(plain) != np.asarray(ringed), axis=-1))
    assert len(changed) > 20
    np.testing.assert_allclose(changed.mean(axis=0), (0.25 * 112, 0.625 * 112), atol=1)


def test_bars_are_as_high_as_the_gates():
    pixels = np.asarray(pictures.bars(np.array([0.0, 0.5, 1.0, 0.25])))
    filled = (pixels[..., 3] == 255).mean(axis=0).reshape(4, -1)
    assert np.ptp(filled, axis=1).max() == 0
    np.testing.assert_allclose(filled[:, 0], [0.0, 0.5, 1.0, 0.25], atol=0.02)


def test_negative_gates_hang_from_zero():
    strip = Strip("p", "w", "bars", np.array([[-1.0, 0.5]]))
    assert pictures.scale(strip) == (-1.0, 1.0)
    (picture,) = pictures.draw(strip, image()[None])
    filled = np.asarray(picture)[..., 3] == 255
    half = len(filled) // 2
    assert not filled[:half, 0].any()
    assert filled[half + 1 : -1, 0].all()
    assert not filled[half + 1 :, -1].any()


def test_a_turning_grid_reads_the_digit_upright():
    images, _, angles = synthetic.digits(3)
    upright, _, _ = synthetic.digits(3)
    grids = synthetic.turning_grid(angles, 28) / 0.85
    assert abs(angles[0]) > 1
    picture = np.asarray(pictures.warp(np.repeat(images[0], 3, axis=-1), grids[0]))
    turned_back = PIL.Image.fromarray((upright[0, ..., 0] * 255).astype(np.uint8))
    turned_back = turned_back.rotate(
        -np.rad2deg(angles[0]), PIL.Image.Resampling.BILINEAR
    )
    wanted = np.asarray(turned_back, float)
    found = picture[2::4, 2::4, 0].astype(float)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.97


def test_the_identity_grid_reads_the_image_and_flips_flip_it():
    values = np.random.default_rng(0).uniform(size=(6, 8, 3)).astype(np.float32)
    y, x = np.meshgrid(
        (2 * np.arange(6) + 1) / 6 - 1, (2 * np.arange(8) + 1) / 8 - 1, indexing="ij"
    )
    same = pictures.warp(values, np.stack([x, y], axis=-1))
    np.testing.assert_allclose(same, pictures.plain(values), atol=1)
    flipped = pictures.warp(values, np.stack([-x, y], axis=-1))
    np.testing.assert_allclose(flipped, pictures.plain(values[:, ::-1]), atol=1)


def test_a_warp_is_what_the_sampler_of_the_modules_reads():
    rng = np.random.default_rng(1)
    values = rng.uniform(size=(14, 16, 3)).astype(np.float32)
    grid = rng.uniform(-1.3, 1.3, (7, 8, 2)).astype(np.float32)
    wanted = sample.bilinear_sample(
        jnp.asarray(values[None]), grid[None], align_corners=False, padding="zeros"
    )
    found = np.asarray(pictures.warp(values, grid))
    assert found.shape == (112 // 8 * 7, 112, 3)
    np.testing.assert_allclose(found[7::14, 7::14] / 255, wanted[0], atol=0.003)


def test_outside_the_image_a_grid_reads_black():
    grid = np.full((4, 4, 2), 1.5)
    assert not np.asarray(pictures.warp(image(), grid)).any()


def test_the_grid_dot_is_at_its_first_corner():
    ends = np.linspace(-0.8, 0.8, 5)
    y, x = np.meshgrid(ends, ends, indexing="ij")
    grid = np.stack([-x, y], axis=-1)  # mirrored: the first corner is upper right
    pixels = np.asarray(pictures.grid(image() * 0, grid), int)
    scale = pixels.shape[0] / (1 + 2 * pictures.MARGIN)
    right, left = (
        np.array([pictures.MARGIN + 0.1, pictures.MARGIN + at]) * scale
        for at in (0.9, 0.1)
    )
    around = lambda place: pixels[
        int(place[0]) - 3 : int(place[0]) + 4, int(place[1]) - 3 : int(place[1]) + 4
    ]
    orange = lambda part: (np.abs(part - pictures.CORNER).sum(axis=-1) < 60).mean()
    assert orange(around(right)) > 0.7 > 0.5 > orange(around(left))


@pytest.mark.parametrize("wild", [1e9, -1e30])
def test_a_wild_grid_is_no_error(wild):
    pictures.grid(image(), np.full((3, 3, 2), wild))
    pictures.warp(image(), np.full((3, 3, 2), wild))


def test_a_map_that_is_the_same_everywhere_has_no_scale():
    strip = Strip("p", "w", "heat", np.full((1, 4, 4), 0.5))
    assert pictures.scale(strip) == (0.5, 0.5)
    (picture,) = pictures.draw(strip, image()[None])
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) == 1


def test_encoding_keeps_a_picture_of_few_colours():
    picture = pictures.plain(np.eye(4)[..., None].repeat(3, axis=-1))
    head, data = pictures.encode(picture).split(",")
    assert head == "data:image/png;base64"
    back = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
    np.testing.assert_array_equal(back.convert("RGB"), picture)

"""Captured maps as shares of an image, against sums written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from attn.explain import places
from attn.modules import Map

RNG = np.random.default_rng(0)
SIZE = (8, 12)


def share(kind, values, grid=None, size=SIZE):
    values = (
        tuple(map(jnp.asarray, values))
        if isinstance(values, tuple)
        else jnp.asarray(values)
    )
    return np.asarray(places.relevance(Map(values, kind, grid), size))


def repeated(cells):
    """Cells [B, h, w] over the image, each even, in float64."""
    down, right = SIZE[0] // cells.shape[1], SIZE[1] // cells.shape[2]
    whole = np.repeat(np.repeat(cells, down, axis=1), right, axis=2)
    return whole / whole.sum(axis=(1, 2), keepdims=True)


def test_a_spatial_map_is_spread_over_its_cells():
    values = RNG.uniform(size=(3, 2, 4))
    np.testing.assert_allclose(share("spatial_map", values), repeated(values), 1e-5)


def test_a_pixel_gate_counts_by_its_size_in_all_channels():
    values = RNG.normal(size=(2, 4, 3, 5))
    wanted = repeated(np.abs(values).sum(axis=-1))
    np.testing.assert_allclose(share("pixel_gate", values), wanted, 1e-5)


@pytest.mark.parametrize("grid", [(4, 6), None])
def test_tokens_without_a_class_token_read_in_the_mean(grid):
    matrix = RNG.uniform(size=(2, 3, 24, 24))
    wanted = repeated(matrix.sum(axis=(1, 2)).reshape(2, 4, 6))
    np.testing.assert_allclose(share("token_matrix", matrix, grid), wanted, 1e-5)


@pytest.mark.parametrize("prefix", [1, 2])
def test_class_tokens_ask_where_there_are_some(prefix):
    matrix = RNG.uniform(size=(2, 3, 24 + prefix, 24 + prefix))
    asked = matrix[:, :, :prefix, prefix:].sum(axis=(1, 2)).reshape(2, 4, 6)
    np.testing.assert_allclose(share("token_matrix", matrix), repeated(asked), 1e-5)


def test_one_query_beside_the_sources_asks():
    matrix = RNG.uniform(size=(2, 3, 1, 25))
    wanted = repeated(matrix[:, :, 0, 1:].sum(axis=1).reshape(2, 4, 6))
    np.testing.assert_allclose(share("token_matrix", matrix), wanted, 1e-5)


def test_weights_that_may_be_negative_count_by_their_size():
    matrix = RNG.normal(size=(2, 1, 24, 6))
    wanted = repeated(np.abs(matrix).sum(axis=(1, 2)).reshape(2, 2, 3))
    np.testing.assert_allclose(share("token_matrix", matrix, (2, 3)), wanted, 1e-5)


def test_factors_count_by_their_product():
    left, right = RNG.normal(size=(2, 3, 24, 4)), RNG.normal(size=(2, 3, 4, 24))
    product = np.abs(left @ right).sum(axis=(1, 2)).reshape(2, 4, 6)
    found = share("factors", (left, right), (4, 6))
    np.testing.assert_allclose(found, repeated(product), 1e-4)


def test_samples_are_shared_by_the_four_pixels_that_are_read():
    grid = RNG.uniform(-1.2, 1.2, size=(2, 3, 5, 2))
    wanted = np.zeros((2, *SIZE))
    for example, sample in np.ndindex(2, 15):
        x, y = grid[example].reshape(-1, 2)[sample]
        column, row = ((x + 1) * SIZE[1] - 1) / 2, ((y + 1) * SIZE[0] - 1) / 2
        for n, m in np.ndindex(SIZE):
            weight = max(0, 1 - abs(row - n)) * max(0, 1 - abs(column - m))
            wanted[example, n, m] += weight
    wanted /= wanted.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(share("sampling_grid", grid), wanted, 1e-4, 1e-6)


def test_sampling_every_pixel_once_is_even():
    y, x = ((2 * np.arange(n) + 1) / n - 1 for n in SIZE)
    grid = np.stack(np.meshgrid(x, y), axis=-1)[None]
    np.testing.assert_allclose(share("sampling_grid", grid), 1 / 96, rtol=1e-4)


def test_means_are_taken_in_float32():
    values = jnp.full((1, 8, 12, 600), 0.1, jnp.bfloat16).at[0, 0, 0].set(0.3)
    found = places.relevance(Map(values, "pixel_gate"), SIZE)
    low, high = (float(jnp.asarray(v, jnp.bfloat16)) for v in (0.1, 0.3))
    np.testing.assert_allclose(found[0, 0, 0], high / (95 * low + high), rtol=1e-5)


@pytest.mark.parametrize("kind", ["channel_gate", "channel_matrix"])
def test_channels_have_no_places(kind):
    assert places.relevance(Map(jnp.ones((2, 3)), kind), SIZE) is None


def test_tokens_on_no_known_grid_have_no_places():
    matrix = jnp.ones((2, 1, 10, 10)) / 10
    assert places.relevance(Map(matrix, "token_matrix"), SIZE) is None


def test_a_map_without_mass_is_even():
    maps = jnp.zeros((2, 2, 3)).at[0, 1, 2].set(5.0)
    found = np.asarray(places.normalise(maps))
    np.testing.assert_allclose(found[0], [[0, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(found[1], 1 / 6, rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (3, 4), (2, 2), (9, 1)])
def test_spreading_keeps_mass(size):
    maps = RNG.uniform(size=(2, 3, 4)).astype(np.float32)
    found = np.asarray(places.spread(jnp.asarray(maps), size))
    np.testing.assert_allclose(found.sum(axis=(1, 2)), maps.sum(axis=(1, 2)), 1e-5)


def test_a_cell_lies_in_pixels_by_its_area():
    maps = jnp.zeros((1, 2, 1)).at[0, 1].set(1.0)
    found = np.asarray(places.spread(maps, (3, 2)))[0]
    np.testing.assert_allclose(found, [[0, 0], [1 / 6] * 2, [1 / 3] * 2], rtol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [
        (24, (8, 12), (4, 6)),
        (26, (8, 12), (4, 6)),
        (197, (224, 224), (14, 14)),
        (7, (8, 8), None),
        (1, (28, 28), (1, 1)),
    ],
)
def test_grids_are_those_of_square_patches(tokens, size, grid):
    assert places.grid_of(tokens, size) == grid


def test_a_map_of_no_numbers_stays_one():
    maps = np.ones((2, 2, 3), np.float32)
    maps[0, 1, 1] = np.nan
    found = np.asarray(places.normalise(maps))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], 1 / 6)

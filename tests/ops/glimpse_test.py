"""Glimpses against crops of NumPy, inside, at the borders and outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops.glimpse import glimpse_grid, glimpses

B, H, W, C = 2, 13, 18, 3
PLACES = np.array(
    [
        [(0, 0), (-1, 1), (0.31, -0.77), (1, -1)],
        [(-0.2, 0.99), (1.4, 0.1), (-9, 2), (0.5, 0.5)],
    ],
    np.float32,
)


def crop(image, place, size, scale):
    """Whole pixels of an image with a wide black frame, averaged cell by cell."""
    (h, w), cell, frame = size, 2**scale, 200
    framed = np.pad(image.astype(np.float64), ((frame, frame), (frame, frame), (0, 0)))
    x, y = (
        (p + 1) / 2 * side for p, side in zip(place, image.shape[1::-1], strict=True)
    )
    left, top = (
        int(np.floor(p - n * cell / 2 + 0.5)) + frame for p, n in ((x, w), (y, h))
    )
    out = np.zeros((h, w, image.shape[-1]))
    for i in range(h):
        for j in range(w):
            row, column = top + i * cell, left + j * cell
            out[i, j] = framed[row : row + cell, column : column + cell].mean((0, 1))
    return out


def images():
    return np.random.default_rng(0).normal(size=(B, H, W, C)).astype(np.float32)


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_are_the_crops_of_numpy(size, dtype):
    x = jnp.asarray(images(), dtype)
    found = jax.jit(glimpses, static_argnums=(2, 3))(x, PLACES, size, 3)
    assert found.shape == (B, PLACES.shape[1], 3, *size, C)
    assert found.dtype == dtype
    x = np.asarray(x, np.float64)
    for b, p, k in np.ndindex(found.shape[:3]):
        want = crop(x[b], PLACES[b, p].astype(np.float64), size, k)
        got = np.asarray(found[b, p, k], np.float64)
        if k == 0:  # pixels as they are
            np.testing.assert_array_equal(got, want)
        elif dtype == "float32":
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_allclose(got, want, rtol=2**-7, atol=1e-3)
    assert not np.any(found[1, 2])  # far outside


def test_the_middle_at_full_size_is_the_map():
    found = glimpses(jnp.asarray(images()), jnp.zeros((B, 1, 2)), (H, W), 1)
    np.testing.assert_array_equal(found[:, 0, 0], images())


def test_the_gradient_goes_to_the_pixels_that_were_read():
    """The function is linear in the map, so that the gradient is its transpose."""
    x, weights = images(), np.random.default_rng(1).normal(size=(B, 4, 2, 3, 4, C))
    weights = jnp.asarray(weights, jnp.float32)
    run = lambda x, p: jnp.sum(weights * glimpses(x, p, (3, 4), 2))
    slope, still = jax.jit(jax.grad(run, argnums=(0, 1)))(x, jnp.asarray(PLACES))
    assert np.sum(slope * x) == pytest.approx(float(run(x, PLACES)), rel=1e-4)
    seen = np.asarray(glimpses(slope, jnp.zeros((B, 1, 2)), (H, W), 1))
    assert np.any(seen) and not np.any(still)


@pytest.mark.parametrize("scale", [0, 2])
def test_the_grid_has_the_middles_of_cells(scale):
    """A map of coordinates is its own grid, where all of the patch is inside."""
    x, y = np.meshgrid((2 * np.arange(W) + 1) / W - 1, (2 * np.arange(H) + 1) / H - 1)
    coordinates = np.repeat(np.stack([x, y], -1)[None], B, 0).astype(np.float32)
    places = jnp.asarray([(0.1, -0.05), (0.03, 0.02)], jnp.float32)
    grid = glimpse_grid(places, (H, W), (3, 4), scale)
    read = glimpses(jnp.asarray(coordinates), places[:, None], (3, 4), 3)[:, 0, scale]
    np.testing.assert_allclose(grid, read, rtol=1e-5, atol=1e-6)


def test_places_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"places \[B, P, 2\], got .* and \[2, 2\]"):
        glimpses(jnp.asarray(images()), jnp.zeros((2, 2)), (3, 4), 1)


def test_whole_numbers_are_averaged_as_others_are():
    x = np.full((1, 8, 8, 1), 200, np.uint8)
    places = np.zeros((1, 1, 2), np.float32)
    found = glimpses(x, places, (2, 2), 2)
    np.testing.assert_array_equal(found, 200)
    assert found.dtype == np.float32

"""Warps against the formulas of their papers, pixel by pixel in float64."""

import numpy as np

from attn.data.digits import warp


def hat_sample(image, x, y):
    """The bilinear sampler of the spatial-transformer paper, equation 5."""
    rows, columns = np.indices(image.shape)
    value = lambda at_x, at_y: np.sum(
        image
        * np.maximum(0, 1 - np.abs(at_x - columns))
        * np.maximum(0, 1 - np.abs(at_y - rows))
    )
    return np.vectorize(value)(x, y)


def test_bilinear_is_the_papers_sampler_with_zeros_outside():
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (3, 5, 7))
    x = random.uniform(-3, 10, (3, 4, 6)).astype(np.float32)
    y = random.uniform(-3, 8, (3, 4, 6)).astype(np.float32)
    x[0, 0] = [-1, 0, 6, 7, -1e30, 1e30]  # on pixels, and far away
    y[0, 0] = [-1, 0, 4, 5, -1e30, 2]
    expected = [hat_sample(*one) for one in zip(images, x, y, strict=True)]
    out = np.empty_like(x)
    warp.bilinear(images, x.copy(), y.copy(), out=out)
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_a_batch_is_warped_as_its_examples_are():
    random = np.random.default_rng(1)
    block = warp.BLOCK // 9**2
    count = 2 * block + 3
    images = random.integers(0, 256, (count, 9, 9), dtype=np.uint8)
    matrix = random.normal(size=(count, 2, 3))
    where = lambda matrix: lambda part: warp.affine(matrix[part], 9)
    whole = warp.warped(images, where(matrix), 9)
    for i in (0, block, count - 1):
        alone = warp.warped(images[i : i + 1], where(matrix[i : i + 1]), 9)
        np.testing.assert_array_equal(whole[i], alone[0])


def test_affine_maps_columns_and_rows():
    matrix = np.random.default_rng(2).normal(size=(2, 2, 3))
    x, y = warp.affine(matrix, 6)
    place = np.array([4, 1, 1])  # column 4, row 1
    np.testing.assert_allclose(x[:, 1, 4], matrix[:, 0] @ place, rtol=1e-5)
    np.testing.assert_allclose(y[:, 1, 4], matrix[:, 1] @ place, rtol=1e-5)


def test_upright_is_an_affine_map_that_does_not_turn():
    random = np.random.default_rng(3)
    step, shift = random.uniform(0.3, 3, (4, 2)), random.uniform(-4, 4, (4, 2))
    matrix = np.zeros((4, 2, 3))
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = *step.T, shift
    images = random.uniform(0, 255, (4, 5, 8))
    x, y = warp.upright(step, shift, 6)
    assert x.shape == (4, 1, 6) and y.shape == (4, 6, 1)
    found, expected = np.empty((2, 4, 6, 6), np.float32)
    warp.bilinear(images, x, y, out=found)
    warp.bilinear(images, *warp.affine(matrix, 6), out=expected)
    np.testing.assert_array_equal(found, expected)


def test_projective_divides_and_sends_what_is_behind_outside():
    matrix = np.array([[[1.0, 0, 0], [0, 2, 0], [0.5, 0, -1]]])  # depth c / 2 - 1
    x, y = warp.projective(matrix, 5)
    np.testing.assert_allclose(x[0, 3, 3:], [3 / 0.5, 4 / 1.0], rtol=1e-6)
    np.testing.assert_allclose(y[0, 3, 3:], [6 / 0.5, 6 / 1.0], rtol=1e-6)
    assert (np.maximum(x, y)[0, 1:, :3] > 1e5).all()


def test_quadrilateral_takes_the_unit_square_to_the_corners():
    corners = np.random.default_rng(3).normal(size=(4, 4, 2)) * 5
    matrix = warp.quadrilateral(corners)
    square = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    mapped = np.einsum("bij,kj->bki", matrix, square)
    np.testing.assert_allclose(mapped[..., :2] / mapped[..., 2:], corners, rtol=1e-7)


def test_spline_moves_control_points_as_told_and_keeps_affine_maps():
    basis = warp.spline_basis(4, 28).T.reshape(28, 28, 16)
    grid = [0, 9, 18, 27]  # the control points are pixels
    at_points = basis[np.ix_(grid, grid)].reshape(16, 16)
    np.testing.assert_allclose(at_points, np.eye(16), atol=1e-5)
    rows, columns = np.indices((28, 28))
    plane = 2 + 0.5 * columns - 0.25 * rows
    moved = basis @ plane[np.ix_(grid, grid)].reshape(16)
    np.testing.assert_allclose(moved, plane, atol=1e-3)

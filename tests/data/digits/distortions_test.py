"""Distortions against loops over pixels in float64, and what they promise."""

import functools
import itertools

import numpy as np
import pytest

from attn.data.digits import warp
from attn.data.digits.distortions import DISTORTIONS
from attn.data.order import uniform

CENTRE = 13.5


def digits(count=20):
    """Images that tell every pixel from every other."""
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)


def draws_of(name, count=4, seed=1):
    return uniform(seed, 1, 0, count, DISTORTIONS[name].draws)


def sample(image, x, y):
    """Bilinear, zero outside, by a loop over the four neighbours."""
    total = 0.0
    for m, n in itertools.product(
        *[(int(np.floor(v)), int(np.floor(v)) + 1) for v in (x, y)]
    ):
        if 0 <= m < 28 and 0 <= n < 28:
            total += image[n, m, 0] * (1 - abs(x - m)) * (1 - abs(y - n))
    return total


def normals(draws):
    pairs = [
        np.sqrt(-2 * np.log(1 - u))
        * np.array([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)])
        for u, v in draws.reshape(-1, 2)
    ]
    return np.concatenate(pairs)


def turned(image, draws, size, degrees, scales):
    """r and rts: by complex numbers."""
    angle = np.deg2rad(degrees * (2 * draws[0] - 1))
    scale, moved = 1.0, 0
    if scales:
        scale = scales[0] + draws[1] * (scales[1] - scales[0])
        room = (size - 28 * scale) / 2
        moved = complex(*(2 * draws[2:4] - 1)) * room
    middle = complex(1, 1) * (size - 1) / 2 + moved
    out = np.zeros((size, size))
    for row, column in np.ndindex(size, size):
        z = (complex(column, row) - middle) * np.exp(1j * angle) / scale
        out[row, column] = sample(image, z.real + CENTRE, z.imag + CENTRE)
    return out


def projected(image, draws):
    """p: the map from moved corners back to the frame, by eight linear equations."""
    scale = 0.75 + 0.25 * draws[0]
    frame = [(0, 0), (27, 0), (0, 27), (27, 27)]
    moves = 5 * normals(draws[1:]).reshape(4, 2)
    equations, values = [], []
    for (u, v), move in zip(frame, moves, strict=True):
        x, y = CENTRE + scale * (np.array([u, v]) - CENTRE) + move
        equations += [
            [x, y, 1, 0, 0, 0, -u * x, -u * y],
            [0, 0, 0, x, y, 1, -v * x, -v * y],
        ]
        values += [u, v]
    h = np.append(np.linalg.solve(equations, values), 1).reshape(3, 3)
    out = np.zeros((28, 28))
    for row, column in np.ndindex(28, 28):
        u, v, w = h @ [column, row, 1]
        # In front where the depth has the sign that it has at the frame's centre.
        back = np.linalg.inv(h)
        centre = (back @ [CENTRE, CENTRE, 1])[2]
        if w * centre > 0:
            out[row, column] = sample(image, u / w, v / w)
    return out


def stretched(image, draws):
    """e: a thin-plate spline fitted to the moves of one example."""
    scale = 0.75 + 0.25 * draws[0]
    points = np.array([(x, y) for y in (0, 9, 18, 27) for x in (0, 9, 18, 27)], float)
    moves = 1.5 * normals(draws[1:]).reshape(16, 2)

    def kernel(a, b):
        r = np.hypot(*(a - b))
        return 0.0 if r == 0 else r**2 * np.log(r)

    system = np.zeros((19, 19))
    for i, j in np.ndindex(16, 16):
        system[i, j] = kernel(points[i], points[j])
    system[:16, 16], system[16, :16] = 1, 1
    system[:16, 17:], system[17:, :16] = points, points.T
    weights = np.linalg.solve(system, np.concatenate([moves, np.zeros((3, 2))]))
    out = np.zeros((28, 28))
    for row, column in np.ndindex(28, 28):
        at = np.array([column, row], float)
        terms = [kernel(at, point) for point in points] + [1, column, row]
        x, y = (at + np.array(terms) @ weights - CENTRE) / scale + CENTRE
        out[row, column] = sample(image, x, y)
    return out


def cluttered(pool, index, draws, side=1):
    """tc, cluttered, translated: by slices, with as many patches as there are draws."""
    out = np.zeros((60, 60))
    x, y = (np.array(draws[:2]) * 33).astype(int)
    out[y : y + 28, x : x + 28] = pool[index, :, :, 0]
    for patch in draws[2:].reshape(-1, 5):
        others = [*range(index + 1, len(pool)), *range(index)]
        other = pool[others[int(patch[0] * len(others))], :, :, 0]
        a, b = (patch[1:3] * (29 - side)).astype(int)
        x, y = (patch[3:5] * (61 - side)).astype(int)
        there = out[y : y + side, x : x + side]
        np.maximum(there, other[b : b + side, a : a + side], out=there)
    return out


ORACLES = {
    "cluttered": functools.partial(cluttered, side=8),
    "e": lambda pool, index, draws: stretched(pool[index], draws),
    "p": lambda pool, index, draws: projected(pool[index], draws),
    "r": lambda pool, index, draws: turned(pool[index], draws, 28, 90, None),
    "rts": lambda pool, index, draws: turned(pool[index], draws, 42, 45, (0.7, 1.2)),
    "tc": functools.partial(cluttered, side=6),
    "translated": cluttered,
}


@pytest.mark.parametrize("name", sorted(DISTORTIONS))
def test_equals_the_loop_over_pixels(name):
    pool, rows, draws = digits(), np.array([3, 19, 0]), draws_of(name, 3)
    distortion = DISTORTIONS[name]
    result = distortion.apply(pool, rows, draws)
    assert result.dtype == np.float32
    assert result.shape == (3, distortion.size, distortion.size, 1)
    patches = {"tc": 6, "cluttered": 4, "translated": 0}.get(name)
    assert patches is None or draws.shape[1] == 2 + 5 * patches
    expected = [ORACLES[name](pool, *one) for one in zip(rows, draws, strict=True)]
    # Coordinates are float32: 4e-6 pixels, times 255 a pixel, more where p is steep.
    np.testing.assert_allclose(
        result[..., 0], expected, atol=0.1 if name == "p" else 0.02
    )


def test_p_shows_the_side_of_the_centre_when_the_frame_folds():
    draws = np.zeros((1, 9))
    draws[0, 1:3] = 0.9999, 0.125  # one corner goes 15 pixels to and past the middle
    result = DISTORTIONS["p"].apply(digits(), np.array([4]), draws)
    expected = projected(digits()[4], draws[0])
    assert 0 < np.count_nonzero(expected) < 28 * 28
    # Near the horizon a pixel of the output spans many of the input.
    assert np.mean(np.abs(result[0, ..., 0] - expected) < 0.1) > 0.99


def test_oracles_cover_the_table():
    assert ORACLES.keys() == DISTORTIONS.keys()


@pytest.mark.parametrize("name", sorted(DISTORTIONS))
def test_an_example_does_not_depend_on_its_batch(name):
    pool, rows, draws = digits(), np.arange(40) % 20, draws_of(name, 40)
    apply = DISTORTIONS[name].apply
    whole = apply(pool, rows, draws)
    np.testing.assert_array_equal(apply(pool, rows, draws), whole)
    np.testing.assert_array_equal(apply(pool, rows[33:34], draws[33:34]), whole[33:34])
    np.testing.assert_array_equal(apply(pool, rows[3:7], draws[3:7]), whole[3:7])
    assert not np.array_equal(apply(pool, rows, draws_of(name, 40, seed=2)), whole)


def test_angle_zero_is_the_identity():
    rows = np.arange(20)
    result = DISTORTIONS["r"].apply(digits(), rows, np.full((20, 1), 0.5))
    np.testing.assert_allclose(result, digits(), atol=1e-3)


def test_scale_one_and_no_moves_is_the_identity():
    # A first number of 0 of a pair makes both of its normals 0.
    rows, last = np.arange(20), 1 - 2**-53
    for name in ("p", "e"):
        draws = np.zeros((20, DISTORTIONS[name].draws))
        draws[:, 0] = last
        result = DISTORTIONS[name].apply(digits(), rows, draws)
        np.testing.assert_allclose(result, digits(), atol=0.01)


def dot(column, row):
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, row, column] = 255
    return image


def test_a_positive_angle_turns_against_the_clock():
    right = dot(23, 13)
    result = DISTORTIONS["r"].apply(right, np.zeros(1, int), np.array([[1 - 1e-9]]))
    row, column = np.unravel_index(result[0, ..., 0].argmax(), (28, 28))
    assert (row, column) == (4, 13)  # at the top


def test_angles_are_uniform_from_minus_90_to_90_degrees():
    blob = dot(23, 13)
    blob[0, 14, 23] = 255
    count = 3000
    images = DISTORTIONS["r"].apply(blob, np.zeros(count, int), draws_of("r", count))
    weights = images[..., 0] / images.sum(axis=(1, 2, 3))[:, None, None]
    rows, columns = np.indices((28, 28))
    x, y = (np.sum(weights * axis, axis=(1, 2)) - CENTRE for axis in (columns, rows))
    angles = np.sort(np.rad2deg(np.arctan2(-y, x)))
    ranks = np.arange(1, count + 1) / count
    assert np.abs((angles + 90) / 180 - ranks).max() < 1.95 / np.sqrt(count)


@pytest.mark.parametrize("corner", list(itertools.product([0, 1 - 2**-53], repeat=3)))
def test_rts_keeps_the_scaled_frame_inside_the_canvas(corner):
    white = np.full((1, 28, 28, 1), 255, np.uint8)
    draws = np.array([[0.5, *corner]])
    mass = DISTORTIONS["rts"].apply(white, np.zeros(1, int), draws).sum() / 255
    scale = 1.2 if corner[0] else 0.7
    # Bilinear sampling keeps the mass but for its steps at the border.
    assert mass == pytest.approx((28 * scale) ** 2, rel=0.04)


def test_tc_places_reach_the_edges_of_the_canvas_and_no_further():
    white = np.full((2, 28, 28, 1), 255, np.uint8)
    for number, edge in ((0.0, slice(0, 28)), (1 - 2**-53, slice(32, 60))):
        draws = np.full((1, DISTORTIONS["tc"].draws), number)
        expected = np.zeros((60, 60))
        expected[edge, edge] = 255
        result = DISTORTIONS["tc"].apply(white, np.zeros(1, int), draws)
        np.testing.assert_array_equal(result[0, ..., 0], expected)


def test_tc_takes_no_patch_of_the_digit_itself():
    pool = np.zeros((5, 28, 28, 1), np.uint8)
    pool[2] = 255  # patches of the others are black
    result = DISTORTIONS["tc"].apply(pool, np.full(200, 2), draws_of("tc", 200))
    assert (result.sum(axis=(1, 2, 3)) == 255 * 28 * 28).all()


def test_normals_have_their_deviations():
    blob = np.zeros((1, 28, 28, 1), np.uint8)
    blob[0, 12:16, 12:16] = 255
    draws = draws_of("e", 3000)
    draws[:, 0] = 1 - 2**-53
    images = DISTORTIONS["e"].apply(blob, np.zeros(3000, int), draws)[..., 0]
    weights = images / images.sum(axis=(1, 2), keepdims=True)
    columns = np.indices((28, 28))[1]
    moved = np.sum(weights * columns, axis=(1, 2)) - CENTRE
    # At the centre the spline is a fixed weighted sum of sixteen moves of 1.5.
    basis = warp.spline_basis(4, 28).reshape(16, 28, 28)[:, 12:16, 12:16]
    expected = 1.5 * np.sqrt(np.sum(basis.mean(axis=(1, 2)) ** 2))
    assert moved.std() == pytest.approx(expected, rel=0.1)
    assert abs(moved.mean()) < 0.1

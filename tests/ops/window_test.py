"""Windows against a walk over the grid, place by place."""

import itertools

import numpy as np
import pytest

from attn.ops import window as windows

# Grid, window, shift: divided or not, shifted or not, one window along an axis.
CASES = [
    ((4, 6), (2, 3), (0, 0)),
    ((4, 6), (2, 3), (1, 1)),
    ((5, 7), (2, 3), (1, 2)),
    ((3, 7), (3, 4), (0, 2)),
    ((2, 5), (2, 5), (0, 0)),
]
each = pytest.mark.parametrize(("grid", "window", "shift"), CASES)


def places(grid, window, shift):
    """For each place of each window: (y, x) there, before padding is cut off."""
    height, width = (-(-n // m) * m for n, m in zip(grid, window, strict=True))
    for top, left in itertools.product(
        range(0, height, window[0]), range(0, width, window[1])
    ):
        yield [
            ((top + i + shift[0]) % height, (left + j + shift[1]) % width)
            for i, j in itertools.product(range(window[0]), range(window[1]))
        ]


@each
def test_every_place_holds_the_token_that_lies_there(grid, window, shift):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *grid, 3)).astype(np.float32)
    cut = np.asarray(windows.partition_windows(x, window, shift))
    tokens = windows.window_tokens(grid, window, shift)
    for number, inside in enumerate(places(grid, window, shift)):
        for place, (y, x_) in enumerate(inside):
            real = y < grid[0] and x_ < grid[1]
            want = x[:, y, x_] if real else np.zeros((2, 3))
            np.testing.assert_array_equal(cut[:, number, place], want)
            number_of = y * grid[1] + x_ if real else grid[0] * grid[1]
            assert tokens[number, place] == number_of
    assert cut.shape == (2, number + 1, window[0] * window[1], 3)
    np.testing.assert_array_equal(windows.merge_windows(cut, grid, window, shift), x)


@each
@pytest.mark.parametrize("see_padding", [False, True])
def test_sees_what_lies_in_its_window_of_the_grid_that_does_not_wrap(
    grid, window, shift, see_padding
):
    mask = windows.window_mask(grid, window, shift, see_padding=see_padding)
    # Figure 2 of the paper: windows moved by the shift, cut off at the border.
    number = lambda p: [(p[a] - shift[a]) // window[a] for a in (0, 1)]
    for got, inside in zip(mask, places(grid, window, shift), strict=True):
        for i, j in np.ndindex(got.shape):
            y, x = inside[j]
            real = y < grid[0] and x < grid[1]
            same = number(inside[i]) == number(inside[j])
            assert got[i, j] == (same and (real or see_padding))


def test_nothing_is_hidden_where_windows_divide_the_grid():
    assert windows.window_mask((4, 6), (2, 3)).all()
    assert not windows.window_mask((4, 6), (2, 3), (1, 0)).all()
    assert windows.window_mask((5, 7), (2, 3), see_padding=True).all()


def test_the_padded_grid_is_the_smallest():
    assert windows.padded_grid((5, 6), (2, 3)) == (6, 6)
    assert windows.padded_grid((1, 7), (1, 4)) == (1, 8)

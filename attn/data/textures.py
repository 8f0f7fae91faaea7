"""Textured canvases for what is drawn: smooth clouds in dim colours, bright colours."""

import functools

import numpy as np

from attn.data.draws import uniform

CLOUD = 9  # knots of the texture along an edge
DRAWS = 4 * CLOUD**2  # random numbers of one cloud
KNOTS = (-100.0, 250.0)  # their range, of which splines take means
DIM = (0.0, 150.0)  # to which the texture is cut off


def cloud(draws: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Textures: a cubic spline over knots that have a brightness and a colour.

    Args:
        draws: [B, DRAWS].
        rows, columns: `weights` of each row and column, [h, CLOUD] and [w, CLOUD], or
            [B, 1, h, CLOUD] and so on for others in each example.

    Returns:
        float32 [B, 3, h, w].
    """
    knots = draws.reshape(-1, 4, CLOUD, CLOUD).astype(np.float32)
    knots = KNOTS[0] + (KNOTS[1] - KNOTS[0]) / 2 * (knots[:, :1] + knots[:, 1:])
    # Knots and weights have so few binary places that all sums are exact in float64:
    # textures are the same on every processor and in every batch.
    knots = _rounded(knots, 6).astype(np.float64)
    found = np.matmul(np.matmul(rows, knots), np.swapaxes(columns, -1, -2))
    return np.clip(found, *DIM, out=found).astype(np.float32)


def _rounded(x: np.ndarray, places: int) -> np.ndarray:
    """Multiples of 2^-places."""
    return np.rint(x * 2**places) / 2**places


def weights(share: np.ndarray) -> np.ndarray:
    """Weights of the knots at places along an edge: float32 [..., CLOUD], of 16 bits.

    The uniform cubic B-spline; the first and the last knot lie outside of the canvas.

    Args:
        share: [...], 0 at one end of the canvas and 1 at the other.
    """
    place = 1 + (CLOUD - 3) * np.asarray(share)[..., None]
    away = np.abs(place - np.arange(CLOUD))
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - away) ** 3 / 6
    found = np.select([away < 1, away < 2], [near, far]).astype(np.float32)
    return _rounded(found, 16)


@functools.lru_cache(maxsize=4)
def pixels(side: int) -> np.ndarray:
    """The `weights` of each pixel of a row of a whole canvas: float32 [side, CLOUD]."""
    found = weights(np.linspace(0, 1, side))
    found.setflags(write=False)
    return found


def bright(hue: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """Bright colours: [B, N] each -> float32 [B, N, 3], the largest part 255."""
    saturation = uniform(saturation, 0.1, 0.6)[..., None]
    ramp = np.abs((6 * hue[..., None] + [0, 4, 2]) % 6 - 3) - 1
    return (255 * (1 - saturation * (1 - np.clip(ramp, 0, 1)))).astype(np.float32)

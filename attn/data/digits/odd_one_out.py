"""Odd one out: three digits of one class and one of another, which is asked for.

The search display of experiments on visual attention (Treisman and Gelade, "A
Feature-Integration Theory of Attention", Cognitive Psychology 1980), with digits. No
digit is odd by itself: whether an eight is the answer depends on what the other three
are. Something in the network has to bring the four together.

A canvas of side S has one digit in each quarter, its ink 0.38 S along the longer side,
anywhere in the quarter; the three are any images of their class, which may repeat. A
batch has:

    image    float32 [B, S, S, 1] in 0..255
    label    int32 [B], class of the odd one, which is the row's own digit
    objects  bool [B, S, S], the ink of the odd one
"""

import numpy as np

from attn.data.digits import ink, warp
from attn.data.digits.pool import Pool
from attn.data.draws import integers, named, uniform

COUNT = 4  # digits
LENGTH = 0.38  # of the ink along its longer side, of the canvas

# What the random numbers of an example are for.
DRAWS = {"alike": COUNT - 1, "quarter": 1, "places": 2 * COUNT}


def odd_one_out(
    pool: Pool, rows: np.ndarray, draws: np.ndarray, side: int = 36
) -> dict[str, np.ndarray]:
    """See the head of this file; arguments as in `attn.data.digits.compositions`.

    Draws: `DRAWS`.
    """
    drawn = named(draws, DRAWS)
    chosen = np.concatenate([rows[:, None], _alike(pool, rows, drawn["alike"])], 1)
    quarter = integers(drawn["quarter"], COUNT)
    # The digit of each quarter: the odd one, number 0, in its own, the others around.
    chosen = np.take_along_axis(chosen, (np.arange(COUNT) - quarter) % COUNT, axis=1)
    quarters = _quarters(pool, chosen.ravel(), drawn["places"], side)

    odd = np.arange(COUNT) == quarter
    objects = (quarters.reshape(*odd.shape, side // 2, side // 2) >= ink.INK) & (
        odd[..., None, None]
    )
    return {
        "image": _joined(quarters, side)[..., None],
        "label": pool.labels[rows],
        "objects": _joined(objects, side),
    }


def _alike(pool: Pool, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Rows of one class that is not an example's own: int [B, n].

    The first is any row of another class, the others any of its class: so that a class
    comes as often as the split has it, and may be missing. If there is no other class,
    the own one is taken.

    Args:
        pool: the whole split.
        rows: int [B], the examples' own.
        draws: [B, n].
    """
    sorted_labels = pool.labels[pool.by_label]
    start, stop = _ends(sorted_labels, pool.labels[rows])
    # What is left in order when the own class is cut out of it.
    first = integers(draws[:, 0], pool.size - (stop - start))
    first = (first + (first >= start) * (stop - start)) % pool.size
    start, stop = _ends(sorted_labels, sorted_labels[first])
    rest = start[:, None] + integers(draws[:, 1:], (stop - start)[:, None])
    return pool.by_label[np.concatenate([first[:, None], rest], axis=1)]


def _ends(sorted_labels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where labels begin and end in a sorted array."""
    sides = ("left", "right")
    return tuple(np.searchsorted(sorted_labels, labels, side) for side in sides)


def _quarters(
    pool: Pool, chosen: np.ndarray, draws: np.ndarray, side: int
) -> np.ndarray:
    """Digits in quarters of a canvas: float32 [B 4, side / 2, side / 2].

    Args:
        pool: the whole split.
        chosen: rows [B 4], four of each example.
        draws: [B, 8], column and row of each.
        side: of the canvas.
    """
    frame, room = pool.frames[chosen], side // 2
    corner, size = frame[:, :2], frame[:, 2:]
    scale = round(LENGTH * side) / size.max(axis=1)
    half = scale[:, None] * size / 2
    # Centres of pixels are whole numbers: edges of quarter and ink lie half a one off.
    middle = uniform(draws.reshape(-1, 2), half - 0.5, room - 0.5 - half)
    step = np.repeat(1 / scale[:, None], 2, axis=1)
    shift = corner + (size - 1) / 2 - step * middle
    where = lambda part: warp.upright(step[part], shift[part], room)
    return warp.warped(pool.pixels[chosen, :, :, 0], where, room)


def _joined(quarters: np.ndarray, side: int) -> np.ndarray:
    """Canvases [B, S, S] of their quarters, row by row; black edge of an odd side."""
    room = side // 2
    parts = quarters.reshape(-1, 2, 2, room, room).transpose(0, 1, 3, 2, 4)
    canvas = np.zeros((len(parts), side, side), quarters.dtype)
    canvas[:, : 2 * room, : 2 * room] = parts.reshape(-1, 2 * room, 2 * room)
    return canvas

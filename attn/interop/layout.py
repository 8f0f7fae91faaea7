"""PyTorch's layouts of arrays, and ours.

Linear layers [out, in] become [in, out], convolutions OIHW become HWIO, those over a
line OIK become KIO. What PyTorch fuses, such as queries, keys and values, is taken
apart, and so are heads: ours are [in, heads, channels] or, on the side of the inputs,
[heads, channels, out]. A 1x1 convolution may stand for a linear layer.
"""

import math
from collections.abc import Callable

import numpy as np

from attn.interop.fitting import Source

Shape = tuple[int, ...]


def source(
    path: tuple[str, ...], shape: Shape, name: str, third: int | None = None
) -> Source:
    """How an array of PyTorch becomes a variable.

    Args:
        path: of the variable in its collection, ("block0", "mixer", "out", "kernel").
        shape: of the variable.
        name: of the array.
        third: which third of the array it is, along its first axis; None for all.
    """
    expected, make = _layout(path, shape)
    if third is None:
        whole, cut = expected, make
    else:
        whole = (3 * expected[0], *expected[1:])
        cut = lambda array: make(np.split(array, 3)[third])
    shapes = (whole,)
    if path[-1] == "kernel" and len(whole) == 2:
        shapes = (whole, (*whole, 1, 1))
        if path == ("position", "kernel"):  # this one is always a convolution
            shapes = shapes[::-1]
    return Source(name, shapes, cut)


def _layout(
    path: tuple[str, ...], shape: Shape
) -> tuple[Shape, Callable[[np.ndarray], np.ndarray]]:
    """The shape in PyTorch, and what makes an array of that shape ours."""
    *_, layer, leaf = ("", *path)
    if leaf == "kernel" and len(shape) == 4:
        return (shape[3], shape[2], *shape[:2]), lambda a: a.transpose(2, 3, 1, 0)
    if leaf == "kernel" and layer == "conv":  # over a line
        return shape[::-1], lambda a: a.transpose(2, 1, 0)
    if leaf == "kernel":
        split = -1 if layer == "out" else 1  # heads lie on the side of the inputs
        outputs = (math.prod(shape[split:]), math.prod(shape[:split]))
        return outputs, lambda a: a.reshape(outputs).T
    if leaf == "bias_table":
        return (shape[0] * shape[1], shape[2]), lambda a: a
    if leaf == "temperature":
        return (*shape, 1, 1), lambda a: a
    if leaf == "word_bias":
        return (1, *shape), lambda a: a
    return (math.prod(shape),) if leaf == "bias" else shape, lambda a: a

"""How large the blocks of `blockwise` are, and whether heads go one after another.

The only place where this is decided, from shapes and platform. The sizes for a CPU
were measured (`benchmarks/dot_product.py`): the block of scores and what is made of
it should stay in a core's cache, and each product be large enough for two threads.
"""

import math
from typing import NamedTuple

from attn.ops.dot_product.problem import Asked

SMALL = 128  # length of blocks of which many are left out
ROUND = 8  # block lengths are multiples of it, where there is more than one block


class Plan(NamedTuple):
    """How one pass goes through the matrix."""

    q: int
    """targets in a block"""
    k: int
    """sources in a block"""
    loop: bool
    """heads one after another with two-dimensional products, not all in one"""
    wide: bool
    """products of float32, whatever the inputs are"""


def plan(
    targets: int, sources: int, asked: Asked, *, platform: str, backward: bool
) -> Plan:
    """Block lengths for `targets` x `sources` logits on `platform`.

    Args:
        targets: T.
        sources: S.
        asked: the settings; a window or a mask function makes the blocks smaller.
        platform: "cpu", "gpu" or "tpu".
        backward: whether it is for the backward pass.
    """
    q, k = _longest(platform, backward)
    reach = SMALL if asked.mask_mod is not None else _reach(asked)
    if reach is not None:
        q = min(q, max(SMALL, reach))
        k = min(k, max(SMALL, reach))
    cpu = platform == "cpu"
    loop = cpu and targets * sources >= 32 * 32
    return Plan(even(targets, q), even(sources, k), loop=loop, wide=cpu)


def even(length: int, longest: int) -> int:
    """The length of equal blocks, of at most about `longest`, that cover `length`."""
    count = -(-length // longest)
    if count <= 1:
        return max(length, 1)
    return math.ceil(length / count / ROUND) * ROUND


def _longest(platform: str, backward: bool) -> tuple[int, int]:
    if platform == "cpu":
        return (512, 256) if backward else (512, 512)
    return 512, 1024


def _reach(asked: Asked) -> int | None:
    """How many sources a target sees, where a window tells."""
    if asked.left is None or asked.right is None:
        return None
    return asked.left + asked.right + 1

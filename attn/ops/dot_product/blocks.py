"""How large the blocks of `blockwise` are, and how many heads go at once.

The only place where this is decided, from shapes and platform. The sizes for a CPU
were measured (`benchmarks/dot_product.py`): the blocks of scores and what is made of
them should stay in a cache, but whole rows and large products are worth more.
"""

import math
from typing import NamedTuple

from attn.ops import shapes
from attn.ops.dot_product.problem import Asked

SMALL = 128  # length of blocks of which many are left out
ROUND = 8  # block lengths are multiples of it, where there is more than one block
AT_ONCE = 2**18  # about how many scores a CPU makes at once in a loop over examples
MOST = 16 * AT_ONCE  # up to how many of one example, before it loops over heads
WHOLE = 5 * AT_ONCE  # up to how many it makes without a loop, which keeps cores waiting


class Plan(NamedTuple):
    """How a pass goes through the matrix, forward and backward."""

    q: int
    """targets in a block"""
    k: int
    """sources in a block"""
    loop: bool
    """some heads after others, not all in one product"""
    wide: bool
    """products of float32, whatever the inputs are"""
    examples: int = 0
    """in a loop, examples whose heads go at once; 0 is one head by itself"""


def plan(
    queries: tuple[int, ...],
    sources: int,
    asked: Asked,
    *,
    platform: str,
) -> Plan:
    """How the logits of `queries` and `sources` are gone through on `platform`.

    Args:
        queries: B, T, N and D.
        sources: S.
        asked: the settings; a window or a mask function makes the blocks smaller.
        platform: "cpu", "gpu" or "tpu".
    """
    batch, targets, heads, _ = queries
    q, k = _longest(platform, asked)
    reach = SMALL if asked.mask_mod is not None else _reach(asked)
    if reach is not None:
        q = min(q, max(SMALL, reach))
        k = min(k, max(SMALL, reach))
    cpu = platform == "cpu"
    loop = cpu and targets * sources >= 32 * 32
    examples = 0
    if loop and targets <= q and sources <= k:
        scores = heads * targets * sources
        loop = not isinstance(batch, int) or batch * scores > WHOLE
        examples = _together(shapes.known(batch), scores) if loop else 0
    return Plan(even(targets, q), even(sources, k), loop, cpu, examples)


def _together(batch: int, scores: int) -> int:
    """How many examples, of `scores` each, go at once: a divisor of the batch, or 0."""
    if scores > MOST:
        return 0
    most = max(1, min(batch, AT_ONCE // max(1, scores)))
    return next(count for count in range(most, 0, -1) if batch % count == 0)


def even(length: int, longest: int) -> int:
    """The length of equal blocks, of at most about `longest`, that cover `length`."""
    count = -(-length // longest)
    if count <= 1:
        return max(length, 1)
    return math.ceil(length / count / ROUND) * ROUND


def _longest(platform: str, asked: Asked) -> tuple[int, int]:
    """Targets and sources of a block; fewer where a causal order leaves blocks out."""
    if platform != "cpu":
        return 512, 1024
    if (asked.left is None) != (asked.right is None):
        return 640, 640
    return 1024, 1024


def _reach(asked: Asked) -> int | None:
    """How many sources a target sees, where a window tells."""
    if asked.left is None or asked.right is None:
        return None
    return asked.left + asked.right + 1

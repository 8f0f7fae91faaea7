"""How large the blocks of `blockwise` are, and how many heads go at once.

The only place where this is decided, from shapes and platform. The limits for a CPU
were measured (`benchmarks/dot_product.py`): the blocks of scores and what is made of
them should stay in a cache, but whole rows and large products are worth more. Others
may be chosen for a machine, within `limited`; `attn.ops.dot_product.measure` finds the
fastest.
"""

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from attn.ops import shapes
from attn.ops.dot_product.problem import Asked, Inputs

SMALL = 128  # length of blocks of which many are left out
ROUND = 8  # block lengths are multiples of it, where there is more than one block
AT_ONCE = 2**18  # about how many scores a CPU makes at once in a loop over examples
MOST = 16 * AT_ONCE  # up to how many of one example, before it loops over heads
WHOLE = 5 * AT_ONCE  # up to how many it makes without a loop, which keeps cores waiting


class Limits(NamedTuple):
    """What bounds the blocks of a plan."""

    q: int
    """targets in a block"""
    k: int
    """sources in a block"""
    at_once: int = AT_ONCE
    """scores that a loop over examples makes at once"""


class Case(NamedTuple):
    """What limits are chosen for: the shapes of one call, but for its batch."""

    targets: int
    sources: int
    heads: int
    kv_heads: int
    channels: int
    values: int
    dtype: str
    one_sided: bool
    """causal, or the mirror of it"""


Choose = Callable[[Case], Limits | None]
_CHOOSE = jax.make_user_context(default_value=None)


def limited(choose: Choose | None) -> contextlib.AbstractContextManager:
    """A context in which blocks keep to the limits that `choose` says.

    It is asked when a function is traced, of each call whose targets may see all
    sources, or all to one side: smaller windows and mask functions have small blocks
    in any case, and sequences that are split over devices those of the table. Where it
    returns None the table holds, as it does within `limited(None)`.
    """
    return _CHOOSE(choose)


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
    limits: Limits | None = None,
) -> Plan:
    """How the logits of `queries` and `sources` are gone through on `platform`.

    Args:
        queries: B, T, N and D.
        sources: S.
        asked: the settings; a window or a mask function makes the blocks smaller.
        platform: "cpu", "gpu" or "tpu".
        limits: of the blocks; None are those of `table`.
    """
    batch, targets, heads, _ = queries
    q, k, at_once = limits or table(platform, _one_sided(asked))
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
        if loop:
            examples = _together(shapes.known(batch), scores, at_once)
    return Plan(even(targets, q), even(sources, k), loop, cpu, examples)


def table(platform: str, one_sided: bool) -> Limits:
    """The limits where none are chosen.

    Blocks are smaller where a causal order leaves some out.
    """
    if platform != "cpu":
        return Limits(512, 1024)
    return Limits(640, 640) if one_sided else Limits(1024, 1024)


def chosen(inputs: Inputs, asked: Asked) -> Limits | None:
    """The limits that were chosen for a call; None where the table holds."""
    whole = asked.mask_mod is None and _reach(asked) is None
    if _CHOOSE.value is None or not whole:
        return None
    _, targets, heads, channels = inputs.q.shape
    _, sources, kv_heads, values = inputs.v.shape
    numbers = targets, sources, heads, kv_heads, channels, values
    if not all(isinstance(number, int) for number in numbers):  # shapes to come
        return None
    return _CHOOSE.value(Case(*numbers, inputs.q.dtype.name, _one_sided(asked)))


def _together(batch: int, scores: int, at_once: int) -> int:
    """How many examples, of `scores` each, go at once: a divisor of the batch, or 0."""
    if scores > MOST:
        return 0
    most = max(1, min(batch, at_once // max(1, scores)))
    return next(count for count in range(most, 0, -1) if batch % count == 0)


def even(length: int, longest: int) -> int:
    """The length of equal blocks, of at most about `longest`, that cover `length`."""
    count = -(-length // longest)
    if count <= 1:
        return max(length, 1)
    return math.ceil(length / count / ROUND) * ROUND


def _one_sided(asked: Asked) -> bool:
    return (asked.left is None) != (asked.right is None)


def _reach(asked: Asked) -> int | None:
    """How many sources a target sees, where a window tells."""
    if asked.left is None or asked.right is None:
        return None
    return asked.left + asked.right + 1

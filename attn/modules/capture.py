"""Attention as an output: what a module attended to, beside what it computed.

A module calls `sow` at the place where its attention exists; `capture` runs any
module or model and hands the records over. When nobody asks, `sow` is not
traced, so nothing is computed for it.

Kinds of map, with B examples, H x W positions, C channels, N heads, T targets and
S sources:

    channel_gate   [B, C]         what to look at
    spatial_map    [B, H, W]      where to look
    pixel_gate     [B, H, W, C]   both
    token_matrix   [B, N, T, S]   what each target reads; with a softmax, rows sum to 1
    channel_matrix [B, N, D, D]   rows sum to 1: what each of D channels reads
    sampling_grid  [B, H, W, 2]   (x, y) that each output position reads, -1 and 1 being
                                  the outer edges of the map
    factors        two arrays [B, N, T, R], [B, N, R, S] whose product is the matrix
    covariance     two arrays [B, C, C]: how channels vary together, and its square root
"""

import collections
import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Literal

import flax.struct
import jax
from flax import linen as nn

from attn import settings

Kind = Literal[
    "channel_gate",
    "spatial_map",
    "pixel_gate",
    "token_matrix",
    "channel_matrix",
    "sampling_grid",
    "factors",
    "covariance",
]
# How many axes an array of each kind has.
AXES: dict[str, int] = {
    "channel_gate": 2,
    "spatial_map": 3,
    "pixel_gate": 4,
    "token_matrix": 4,
    "channel_matrix": 4,
    "sampling_grid": 4,
    "factors": 4,
    "covariance": 3,
}
STATISTICS = ("covariance",)  # what was pooled, which chooses nothing by itself
COLLECTION = "attention"
_heard: contextvars.ContextVar[list["Map"] | None] = contextvars.ContextVar(
    "heard", default=None
)
# The place of each name that is captured, in the order of the calls.
_called: contextvars.ContextVar[dict[str, int] | None] = contextvars.ContextVar(
    "called", default=None
)


class Map(flax.struct.PyTreeNode):
    """One recorded map.

    Attributes:
        values: an array of the shape its kind says, or two arrays for "factors" and
            "covariance".
        kind: one of the kinds above.
        grid: (H, W) on which the S sources of a token matrix lie, if they do.
    """

    values: Any
    kind: Kind = flax.struct.field(pytree_node=False)
    grid: tuple[int, int] | None = flax.struct.field(pytree_node=False, default=None)


def sow(
    module: nn.Module,
    kind: Kind,
    values: Any | Callable[[], Any],
    *,
    grid: tuple[int, int] | None = None,
) -> None:
    """Notes, if somebody captures or listens, that `module` attended by `values`.

    A callable is called only when somebody does: for maps that the computation
    itself does not need.

    Raises:
        ValueError: no kind of map is called `kind`, or it has another number of axes.
    """
    if kind not in AXES:
        raise settings.unknown("kind of map", kind, AXES)
    captured = module.is_mutable_collection(COLLECTION)
    captured = captured and not module.is_initializing()
    heard = _heard.get()
    if not captured and heard is None:
        return
    found = Map(values() if callable(values) else values, kind, grid)
    for array in jax.tree.leaves(found.values):
        if array.ndim != AXES[kind]:
            raise ValueError(
                f"a {kind} has {AXES[kind]} axes, got an array of shape {array.shape}"
            )
    if heard is not None:
        heard.append(found)
    if captured:
        called = _called.get()
        if called is not None:
            called.setdefault("/".join([*module.path, kind]), len(called))
        module.sow(COLLECTION, kind, found)


@contextlib.contextmanager
def listening() -> Iterator[list[Map]]:
    """A list of the maps of whatever attends inside, in the order of the calls.

    It is for a model that needs the maps itself, to hand them to its task or to carry
    them out of `nn.scan`, in training too, where nobody captures. What is called
    inside must not trace a function of its own around its attention.
    """
    heard: list[Map] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Nobody listens inside, whoever does outside; what is captured stays so."""
    token = _heard.set(None)
    try:
        yield
    finally:
        _heard.reset(token)


def capture(
    module: nn.Module, variables: Any, *args: Any, **kwargs: Any
) -> tuple[jax.Array, collections.OrderedDict[str, Map]]:
    """Applies a module or model, and returns its output and what it attended to.

    Args:
        module: any mechanism or model.
        variables: its variables, as `init` made them.
        *args, **kwargs: the input; `train` is False unless it is given.

    Returns:
        The output, and the maps by "path/kind": the path of the submodule, empty
        for `module` itself, so that a bare mechanism has "channel_gate" and a model
        "stage2/block0/residual/channel_gate". A second record of one kind in one
        submodule is called "kind_1", and so on. They are in the order in which the
        submodules were called, which an ordered dictionary keeps through `jax.jit`;
        those of a function that Flax had traced before, as by `nn.jit`, come last.
    """
    kwargs.setdefault("train", False)
    # Training moves averages, which are not kept.
    mutable = [COLLECTION, *(name for name in variables if name != "params")]
    called: dict[str, int] = {}
    token = _called.set(called)
    try:
        y, state = module.apply(variables, *args, mutable=mutable, **kwargs)
    finally:
        _called.reset(token)
    is_map = lambda leaf: isinstance(leaf, Map)
    found = jax.tree.leaves_with_path(state.get(COLLECTION, {}), is_leaf=is_map)
    records: dict[str, list[Map]] = {}
    for path, leaf in found:  # by name, and of one name in their order
        name = "/".join(entry.key for entry in path[:-1])
        records.setdefault(name, []).append(leaf)
    maps: collections.OrderedDict[str, Map] = collections.OrderedDict()
    for name in sorted(records, key=lambda name: called.get(name, len(called))):
        for number, leaf in enumerate(records[name]):
            maps[f"{name}_{number}" if number else name] = leaf
    return y, maps

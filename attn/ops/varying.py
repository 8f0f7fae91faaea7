"""Arrays that differ between devices, whose types tell so within `jax.shard_map`.

There a loop's carry must differ along the same axes before and after its first round,
and a gradient as what it is of. Elsewhere nothing here does anything.
"""

from typing import Any

import jax
from jax import lax


def axes(tree: Any) -> frozenset[str]:
    """Along which mapped axes any array of a tree differs."""
    of = lambda x: jax.typeof(x).manual_axis_type.varying
    return frozenset().union(*map(of, jax.tree.leaves(tree)))


def together(tree: Any) -> Any:
    """The tree, each of its arrays differing along the axes that any differs along."""
    return like(tree, tree)


def like(tree: Any, other: Any) -> Any:
    """The tree, its arrays differing also along the axes that `other` differs along."""
    wanted = axes(other)

    def cast(x):
        missing = tuple(sorted(wanted - axes(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree) if wanted else tree

"""Matching: which query is to find which object, at the least total cost.

The assignment of Carion et al., "End-to-End Object Detection with Transformers", ECCV
2020, https://arxiv.org/abs/2005.12872, section 3.1, by optax's Hungarian algorithm,
which is exact and runs on the devices.
"""

import jax
import jax.numpy as jnp
import optax

# Costs beyond it count as it: with NaN or infinities the algorithm does not end.
BOUND = 1e6


def match(costs: jax.Array, mask: jax.Array) -> jax.Array:
    """The query that each object gets: [..., Q, N], [..., N] -> int32 [..., N].

    No query gets two objects, and the sum of the costs of all objects is the least that
    there is. What it says where there is no object means nothing. Has no gradient.

    Args:
        costs: of each query for each object; NaN is the worst. N is at most Q.
        mask: where there is an object; is broadcast.

    Raises:
        ValueError: more objects than queries.
    """
    queries, objects = costs.shape[-2:]
    if objects > queries:
        raise ValueError(f"{objects} objects are more than the {queries} queries")
    if not objects:  # of which the algorithm makes no assignment
        return jnp.zeros((*costs.shape[:-2], 0), jnp.int32)
    costs = jnp.nan_to_num(jax.lax.stop_gradient(costs.astype(jnp.float32)), nan=BOUND)
    # what has the same cost for all queries changes nothing for the others
    costs = jnp.where(mask[..., None, :], jnp.clip(costs, -BOUND, BOUND), 0)
    found = jax.vmap(_match)(costs.reshape(-1, queries, objects))
    return found.reshape(*costs.shape[:-2], objects)


def _match(costs: jax.Array) -> jax.Array:
    """One assignment: [Q, N] -> [N]."""
    queries, objects = optax.assignment.hungarian_algorithm(costs)
    return jnp.zeros(costs.shape[1], jnp.int32).at[objects].set(queries)

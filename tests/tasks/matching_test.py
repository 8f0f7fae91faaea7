"""Matching against scipy, which solves the same problem on one matrix at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from attn.tasks import matching

RANDOM = np.random.default_rng(0)
QUERIES, OBJECTS = 9, 5
COSTS = {
    "random": RANDOM.normal(size=(2, 8, QUERIES, OBJECTS)),
    "tied": RANDOM.integers(0, 3, (2, 8, QUERIES, OBJECTS)),
    "the same": np.full((2, 8, QUERIES, OBJECTS), -2.5),
    "large": 1e5 * RANDOM.normal(size=(2, 8, QUERIES, OBJECTS)),
    "one good query": np.zeros((2, 8, QUERIES, OBJECTS)),
}
COSTS["one good query"][:, :, 3] = -1 - np.arange(OBJECTS)
MASK = np.arange(OBJECTS) < RANDOM.integers(0, OBJECTS + 1, (2, 8, 1))
MASK[0, 0], MASK[0, 1] = False, True
MASK[1, :] = RANDOM.permuted(MASK[1], axis=-1)  # with gaps
match = jax.jit(matching.match)


@pytest.mark.parametrize("kind", COSTS)
def test_the_cost_of_all_objects_is_the_least(kind):
    costs = COSTS[kind].astype(np.float32)
    found = np.asarray(match(costs, MASK))
    assert found.shape == MASK.shape and found.dtype == np.int32
    for index in np.ndindex(*MASK.shape[:2]):
        (there,) = np.nonzero(MASK[index])
        queries = found[index][there]
        assert len(set(queries.tolist())) == len(there)
        own = costs[index].astype(np.float64)
        rows, columns = linear_sum_assignment(own[:, there])
        least = own[:, there][rows, columns].sum()
        assert own[queries, there].sum() == pytest.approx(least, rel=1e-6)


def test_as_many_objects_as_queries_are_all_matched():
    costs = RANDOM.normal(size=(4, 6, 6)).astype(np.float32)
    found = np.asarray(match(costs, np.ones((4, 6), bool)))
    for own, queries in zip(costs, found, strict=True):
        rows, columns = linear_sum_assignment(own)
        np.testing.assert_array_equal(queries[columns], rows)


def test_no_places_for_objects_are_an_empty_assignment():
    found = match(np.zeros((2, 3, QUERIES, 0), np.float32), np.ones((2, 3, 0), bool))
    assert found.shape == (2, 3, 0) and found.dtype == np.int32


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_it_ends_where_costs_are_not_finite(bad):
    costs = RANDOM.normal(size=(3, 6, 4)).astype(np.float32)
    costs[0] = bad
    costs[1, :, 2] = bad
    costs[2, 3] = bad
    found = np.asarray(match(costs, np.ones((3, 4), bool)))
    for queries in found:
        assert len(set(queries.tolist())) == 4
    assert bad < 0 or 3 not in found[2]


def test_it_has_no_gradient_and_refuses_more_objects_than_queries():
    def chosen(costs):
        query = matching.match(costs, jnp.ones((1, 3), bool))
        return jnp.take_along_axis(costs, query[:, None], axis=1).sum()

    costs = jnp.asarray(RANDOM.normal(size=(1, 5, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(chosen))(costs)
    assert gradient.sum() == 3 and set(np.unique(gradient)) == {0, 1}
    with pytest.raises(ValueError, match="4 objects are more than the 3 queries"):
        matching.match(jnp.zeros((1, 3, 4)), jnp.ones((1, 4), bool))

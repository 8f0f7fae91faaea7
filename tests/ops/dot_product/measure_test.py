"""Limits of blocks that are chosen for a machine: where they count, and the fastest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops
from attn.ops.dot_product import blocks, measure
from attn.ops.dot_product.blocks import Case, Limits

B, T, S, N, K, D, DV = 2, 70, 90, 4, 2, 6, 5
CASE = Case(T, S, N, K, D, DV, "float32", one_sided=False)


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    shapes = (B, T, N, D), (B, S, K, D), (B, S, K, DV)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def test_the_limits_that_are_chosen_make_the_blocks(arrays):
    asked = []

    def choose(case):
        asked.append(case)
        return Limits(16, 32)

    before = ops.explain(*arrays).plan
    with blocks.limited(choose):
        plan = ops.explain(*arrays).plan
        causal = ops.explain(*arrays, is_causal=True).plan
    assert (before.q, before.k) == (T, S)
    assert (plan.q, plan.k) == (causal.q, causal.k) == (16, 32)
    assert set(asked) == {CASE, CASE._replace(one_sided=True)}
    assert ops.explain(*arrays).plan == before


def test_windows_and_mask_functions_have_their_own(arrays):
    def choose(case):
        raise AssertionError("asked")

    with blocks.limited(choose):
        ops.explain(*arrays, window=3)
        ops.explain(*arrays, mask_mod=lambda b, n, t, s: s <= t)
    plain = ops.explain(*arrays)
    with blocks.limited(lambda case: None):
        assert ops.explain(*arrays) == plain


@pytest.mark.parametrize("at_once", [1, 2**20])
def test_values_and_gradients_are_the_same_by_whatever_limits(arrays, at_once):
    @jax.jit
    def both(q, k, v):
        y, back = jax.vjp(ops.dot_product_attention, q, k, v)
        return y, back(jnp.sin(y))

    expected = both(*arrays)
    traced = []

    def choose(case):
        traced.append(case)
        return Limits(24, 16, at_once)

    with blocks.limited(choose):  # what was compiled outside is compiled anew
        found = both(*arrays)
    assert traced
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), expected, found
    )


def test_scores_at_once_say_how_many_examples_go_together():
    plans = measure.candidates(Case(49, 49, 3, 3, 8, 8, "float32", False)).values()
    assert {plan.examples for plan in plans} == {8, 32, 128}
    assert {(plan.q, plan.k) for plan in plans} == {(49, 49)}


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_windows_of_few_heads_are_measured_too(heads):
    case = Case(49, 49, heads, heads, 8, 8, "float32", False)
    assert len(measure.candidates(case)) == 3


def test_candidates_begin_with_the_table_and_differ():
    case = Case(2048, 2048, 2, 2, 8, 8, "float32", one_sided=True)
    found = measure.candidates(case)
    assert next(iter(found)) == blocks.table("cpu", one_sided=True)
    assert len(set(found.values())) == len(found) > 3


def fixed(**times):
    """Runs that take some seconds each, and how often each ran."""
    count = dict.fromkeys(times, 0)

    def run(name):
        count[name] += 1
        return times[name]

    return {name: lambda name=name: run(name) for name in times}, count


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ({"table": 1.0, "a": 0.8, "b": 0.7}, "b"),
        ({"table": 1.0, "a": 0.95, "b": 1.2}, "table"),
        ({"table": 1.0}, "table"),
    ],
)
def test_the_fastest_wins_by_more_than_noise(times, wanted):
    assert measure.race(fixed(**times)[0]) == wanted


def test_what_is_far_slower_is_not_measured_again():
    runs, count = fixed(table=2.0, a=1.0, b=5.0)
    assert measure.race(runs) == "a"
    assert count == {"table": 2 + measure.ROUNDS, "a": 2 + measure.ROUNDS, "b": 2}


def test_a_case_is_measured_while_a_function_is_traced(arrays, monkeypatch):
    raced = []

    def race(runs):
        raced.append([run() for run in runs.values()])
        return list(runs)[-1]

    monkeypatch.setattr(measure, "race", race)
    monkeypatch.setattr(measure, "LENGTHS", ((16, 16), (32, 32)))
    with blocks.limited(measure.fastest):
        y = jax.jit(ops.dot_product_attention)(*arrays)
        plan = ops.explain(*arrays).plan
    assert (plan.q, plan.k) == (24, 32)  # of 70 and 90 in equal parts
    assert all(len(times) == 3 and min(times) > 0 for times in raced)
    expected = ops.dot_product_attention(*arrays, implementation="reference")
    np.testing.assert_allclose(y, expected, atol=2e-6)

"""Which limits of blocks are fastest on this machine, by a short measurement.

    with blocks.limited(functools.cache(measure.fastest)):
        ...

Measured is what a training needs, forward and backward, on random arrays.
"""

import concurrent.futures
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from attn.ops.dot_product import blocks, blockwise
from attn.ops.dot_product.blocks import Case, Limits, Plan
from attn.ops.dot_product.problem import Asked, Inputs

LENGTHS = ((256, 256), (512, 512), (512, 1024), (640, 640), (1024, 1024), (1024, 2048))
AT_ONCE = (2**16, 2**18, 2**20)
ROUNDS = 3
SLOW = 1.3  # what takes so many times as long as the fastest is not measured again
SCORES = 2**22  # about how many are measured, of as many examples as these are
GAIN = 0.9  # below which share of the table's time others are taken: noise is 7 %


def fastest(case: Case) -> Limits:
    """The limits with which a case is fastest here, those of the table if about as so.

    Takes some seconds, most of them to compile. It may be called while a function is
    traced.
    """
    plans = candidates(case)
    if len(plans) == 1:
        return next(iter(plans))
    # a thread has a trace and contexts of its own
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: race(_runs(case, plans))).result()


def race(runs: Mapping[Limits, Callable[[], float]], rounds: int = ROUNDS) -> Limits:
    """The fastest of some limits; the first where none is faster than by noise.

    Args:
        runs: runs once with the limits, and returns the seconds that it took.
        rounds: of all in turn, whose medians count.
    """
    table, *_ = runs
    first = {}
    for limits, run in runs.items():
        run()
        first[limits] = run()
    most = SLOW * min(first.values())
    left = [limits for limits in runs if limits == table or first[limits] <= most]
    if len(left) == 1:
        return table
    turns = [{limits: runs[limits]() for limits in left} for _ in range(rounds)]
    medians = {one: statistics.median(turn[one] for turn in turns) for one in left}
    best = min(left, key=medians.__getitem__)
    return best if medians[best] < GAIN * medians[table] else table


def candidates(case: Case) -> dict[Limits, Plan]:
    """Limits that make plans of their own for a case, those of the table first."""
    platform = jax.default_backend()
    queries = _examples(case), case.targets, case.heads, case.channels
    known = blocks.table(platform, case.one_sided)
    found: dict[Plan, Limits] = {}
    for limits in (known, *(Limits(*pair, n) for pair in LENGTHS for n in AT_ONCE)):
        plan = blocks.plan(
            queries, case.sources, _asked(case), platform=platform, limits=limits
        )
        found.setdefault(plan, limits)
    return {limits: plan for plan, limits in found.items()}


def _runs(
    case: Case, plans: Mapping[Limits, Plan]
) -> dict[Limits, Callable[[], float]]:
    """Runs of a case by each of the plans."""
    batch = _examples(case)
    shapes = (
        (batch, case.targets, case.heads, case.channels),
        (batch, case.sources, case.kv_heads, case.channels),
        (batch, case.sources, case.kv_heads, case.values),
        (batch, case.targets, case.heads, case.values),
    )
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal(s), case.dtype) for s in shapes]

    def run(plan: Plan, q, k, v, dy):
        whole = lambda *qkv: blockwise.attend(_inputs(*qkv), _asked(case), plan)
        y, back = jax.vjp(whole, q, k, v)
        return y, back(dy.astype(y.dtype))

    def timed(plan: Plan) -> Callable[[], float]:
        compiled = jax.jit(functools.partial(run, plan)).lower(*arrays).compile()

        def seconds() -> float:
            began = time.perf_counter()
            jax.block_until_ready(compiled(*arrays))
            return time.perf_counter() - began

        return seconds

    return {limits: timed(plan) for limits, plan in plans.items()}


def _examples(case: Case) -> int:
    """A power of two, so that any number of them may go at once."""
    scores = case.targets * case.sources * case.heads
    return 2 ** int(math.log2(max(1, SCORES // max(1, scores))))


def _inputs(q: jax.Array, k: jax.Array, v: jax.Array) -> Inputs:
    rest = dict.fromkeys(("bias", "mask", "q_lengths", "kv_lengths", "dropout_rng"))
    return Inputs(q, k, v, **rest)


def _asked(case: Case) -> Asked:
    return Asked(
        scale=case.channels**-0.5,
        left=None,
        right=0 if case.one_sided else None,
        logits_cap=None,
        dropout_rate=0.0,
        normalize="softmax",
        return_weights=False,
    )

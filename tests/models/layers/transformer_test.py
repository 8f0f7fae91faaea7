"""The block of several hosts: stochastic depth leaves out branches, of whole examples.

Its forward pass is checked with the hosts that have it, in interop_test.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from attn.models import slots
from attn.models.layers.transformer import Block

FILL = slots.check({"block.pre": "none"}, places={"block.pre": 0}, scopes={})


def test_a_branch_is_there_twice_as_strong_or_not_at_all():
    # Without a mixer there is one branch, that of the MLP.
    block = Block(fill=FILL, given=FrozenDict(), drop_path=0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 6, 4)), jnp.float32)
    call = {"grid": (2, 3)}
    variables = block.init(jax.random.key(0), x, train=False, **call)
    variables = jax.tree.map(lambda a: a + 0.3, variables)
    branch = block.apply(variables, x, train=False, **call) - x
    key = {"dropout": jax.random.key(1)}
    got = block.apply(variables, x, train=True, rngs=key, **call) - x
    there = np.abs(got).max((1, 2)) > 0
    assert 8 < there.sum() < 24
    np.testing.assert_allclose(got[there], 2 * branch[there], rtol=1e-4, atol=1e-5)
    assert np.abs(branch).min() > 0  # a part of a branch would show

"""What the tests of mechanisms share: variables that are not the initial ones."""

import jax
import numpy as np
import pytest


@pytest.fixture
def random_variables():
    """A function (module, *inputs) -> variables with random entries.

    Initial parameters hide bugs: zero biases, gammas of one or zero, and statistics
    of mean 0 and variance 1 make wrong formulas look right.
    """

    def fill(module, *inputs, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(path, a):
            if path[-1].key == "var":
                return rng.uniform(0.5, 2, a.shape).astype(np.float32)
            fan = np.prod(a.shape[:-1]) if a.ndim > 1 else 2
            return rng.normal(scale=fan**-0.5, size=a.shape).astype(np.float32)

        init = lambda *inputs: module.init(jax.random.key(0), *inputs, train=False)
        return jax.tree.map_with_path(leaf, jax.eval_shape(init, *inputs))

    return fill

"""Choice between the programs of an operation that has several."""

import contextlib

import jax

_PLAIN = jax.make_user_context(default_value=False)


def plain() -> contextlib.AbstractContextManager:
    """A context in which operations are what XLA makes of their formulas.

    No kernels, and no gradients of their own, so that they can be differentiated
    forward (`jax.jvp`, `jax.jacfwd`, `jax.hessian`) and as often as wanted; slower, and
    with attention matrices in memory. It acts when a function is traced: enter it
    around the call, or inside of the function. What was compiled outside of it is
    compiled anew inside.
    """
    return _PLAIN(True)


def is_plain() -> bool:
    """Whether code is traced inside of `plain`."""
    return _PLAIN.value

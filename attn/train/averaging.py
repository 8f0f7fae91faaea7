"""Averages of the parameters, with which a model is evaluated in their stead.

An average is part of the state, and each step moves it by a share of the way to the
parameters as they are after it: what it is follows from the steps alone, whenever a
training was interrupted.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from attn import settings

# (number of the step, counting from 1; whether it made an update) -> share
Share = Callable[[jax.Array, jax.Array | bool], jax.Array]


def create(
    *, moving: float | None, last: int | None, steps: int, save_every: int
) -> Share | None:
    """The share by which a step moves the average; None where there is no average.

    Args:
        moving: the decay of a moving average, at each update.
        last: how many of the last checkpoints the average is the mean of, as Vaswani
            et al. 2017 have it (https://arxiv.org/abs/1706.03762, section 6.1): those
            at multiples of `save_every` and the one at the end. Before the first of
            them it is the parameters themselves, and then the mean so far.
        steps: of the training.
        save_every: steps between two checkpoints.

    Raises:
        Invalid: both averages, or more checkpoints than there are.
    """
    if last is None:
        return None if moving is None else _moving(moving)
    if moving is not None:
        raise settings.Invalid(
            f"one of average and average_last is given at most, got average={moving}"
            f" and average_last={last}"
        )
    saves = [*range(save_every, steps, save_every), steps]
    if last > len(saves):
        raise settings.Invalid(
            f"average_last must be at most the number of checkpoints, {len(saves)} in"
            f" {steps} steps with save_every={save_every}, got {last}"
        )
    return _last(np.asarray(saves[-last:]))


def _moving(decay: float) -> Share:
    return lambda step, updated: jnp.where(updated, 1 - decay, 0.0)


def _last(saves: np.ndarray) -> Share:
    def share(step: jax.Array, updated: jax.Array | bool) -> jax.Array:
        del updated
        reached = jnp.sum(step >= saves)
        new = jnp.where(jnp.any(step == saves), 1 / jnp.maximum(reached, 1), 0.0)
        return jnp.where(reached == 0, 1.0, new)

    return share

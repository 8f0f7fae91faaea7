"""One training step and one evaluation step: the same under pmap, vmap and a mesh."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from attn.tasks import Task
from attn.train import optimizer as optimizers
from attn.train.state import State

Batch = Mapping[str, jax.Array]
# The streams of randomness that a module may ask for.
STREAMS = ("dropout", "sample")


def init(
    seed: jax.Array,
    image: jax.Array,
    *,
    host: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    average: bool,
) -> State:
    """The state before the first step, for images like `image` [B, H, W, C]."""
    extras = dict(host.init(jax.random.key(seed), image, train=False))
    params = extras.pop("params")
    return State(
        step=jnp.zeros((), jnp.int32),
        seed=seed,
        params=params,
        extras=extras,
        opt_state=optimizer.init(params),
        average=(params, extras) if average else None,
        totals={name: jnp.zeros(()) for name in (*task.metrics, "steps")},
    )


def train_step(
    state: State,
    batch: Batch,
    *,
    host: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    decay: float,
    axis: str | None,
) -> tuple[State, jax.Array]:
    """Takes one step, and returns the new state and the loss.

    Args:
        state: the state.
        batch: "image" [B, H, W, C] and "label" [B]: of one device under pmap, of the
            whole machine under jit.
        host: the model.
        task: its loss.
        optimizer: what turns gradients into updates.
        decay: of the moving average of the parameters, if the state has one.
        axis: the mapped axis to average over; None under a mesh, where the loss is
            a global mean and the compiler adds the same collectives, and where a
            training has its step for itself.
    """
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    # one device draws the same with an axis and without
    key = jax.random.fold_in(key, 0 if axis is None else jax.lax.axis_index(axis))
    rngs = dict(zip(STREAMS, jax.random.split(key, len(STREAMS)), strict=True))

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, **state.extras}
        logits, extras = host.apply(
            variables, batch["image"], train=True, rngs=rngs, mutable=list(state.extras)
        )
        loss, metrics = task.loss(logits, batch)
        return loss, (extras, metrics)

    grads, (extras, metrics) = jax.grad(loss_of, has_aux=True)(state.params)
    if axis is not None:
        grads, extras, metrics = jax.lax.pmean((grads, extras, metrics), axis)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        moved = optax.incremental_update((params, extras), average, 1 - decay)
        updated = optimizers.has_updated(opt_state)
        average = jax.tree.map(lambda a, b: jnp.where(updated, a, b), moved, average)
    totals = jax.tree.map(jnp.add, state.totals, metrics | {"steps": jnp.ones(())})
    state = state.replace(
        step=state.step + 1,
        params=params,
        extras=extras,
        opt_state=opt_state,
        average=average,
        totals=totals,
    )
    return state, metrics["loss"]


def eval_step(
    variables: Any,
    batch: Batch,
    *,
    host: nn.Module,
    task: Task,
    axis: str | None,
) -> dict[str, jax.Array]:
    """What one batch adds to the evaluation, summed over all devices."""
    logits: Any = host.apply(variables, batch["image"], train=False)
    sums = task.sums(logits, batch)
    return sums if axis is None else jax.lax.psum(sums, axis)

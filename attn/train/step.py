"""One training step and one evaluation step: the same under pmap, vmap and a mesh."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from attn.modules import choices
from attn.tasks import Mean, Task
from attn.train import optimizer as optimizers
from attn.train.averaging import Share
from attn.train.state import State

Batch = Mapping[str, jax.Array]
LOSS = "loss"  # what is minimised, but for losses of modules
LOSSES = "losses"  # the collection into which modules sow losses of their own
SOWN = (LOSSES, choices.COLLECTION)  # what a step makes and leaves behind
KEPT = "task"  # the collection of what the task keeps, which no model reads
INPUTS = ("image",)  # of a model that does not say
STREAMS = ("dropout", "sample")  # of randomness, likewise


def inputs(model: nn.Module) -> tuple[str, ...]:
    """Names of the fields of a batch that a model is called with, in their order."""
    return tuple(getattr(model, "inputs", INPUTS))


def variables(model: nn.Module, key: jax.Array, batch: Batch) -> dict[str, Any]:
    """The variables that a model starts with, for batches like `batch`."""
    rngs = {**streams(model, key), "params": key}
    arguments = (batch[name] for name in inputs(model))
    found = dict(model.init(rngs, *arguments, train=False))
    return {name: value for name, value in found.items() if name not in SOWN}


def evaluated(model: nn.Module, variables: Any, batch: Batch, key: jax.Array) -> Any:
    """The model's outputs for a batch, without training."""
    arguments = (batch[name] for name in inputs(model))
    rngs = streams(model, key)
    return model.apply(variables, *arguments, train=False, rngs=rngs)


def trained(
    model: nn.Module, variables: Any, batch: Batch, key: jax.Array
) -> tuple[Any, dict[str, Any]]:
    """The model's outputs in training, and its changed and sown collections."""
    arguments = (batch[name] for name in inputs(model))
    others = [name for name in variables if name != "params"]
    outputs, changed = model.apply(
        variables,
        *arguments,
        train=True,
        rngs=streams(model, key),
        mutable=[*others, *SOWN],
    )
    return outputs, dict(changed)


def losses(
    model: nn.Module, task: Task, variables: Any, batch: Batch, axis: str | None
) -> tuple[str, ...]:
    """Names of the losses that a training step logs, from shapes alone.

    Args:
        model, task: what is trained.
        variables, batch: abstract ones.
        axis: the mapped axis that the model may sum over, if any.
    """

    def found(number: jax.Array, variables: Any, batch: Batch) -> dict[str, Mean]:
        key = jax.random.fold_in(jax.random.key(0), number)
        outputs, changed = trained(model, variables, batch, key)
        return _losses(task, outputs, changed, {**batch, **kept(task)})

    number: Any = np.int32(0)
    if axis is not None:
        found = jax.vmap(found, in_axes=(0, None, None), axis_name=axis)
        number = np.zeros(1, np.int32)
    names = jax.eval_shape(found, number, variables, batch)
    return tuple(dict.fromkeys((LOSS, *names)))


def start(
    seed: jax.Array,
    variables: Mapping[str, Any],
    *,
    losses: Sequence[str],
    task: Task,
    optimizer: optax.GradientTransformation,
    average: bool,
) -> State:
    """The state before the first step.

    Args:
        seed: of the training.
        variables: that the model starts with.
        losses: names of those that are logged.
        task: whose numbers are kept from step to step.
        optimizer: whose state belongs to it.
        average: whether there is an average of the parameters.
    """
    extras = dict(variables)
    params = extras.pop("params")
    if task.kept:
        extras[KEPT] = kept(task)
    zero = Mean(jnp.zeros(()), jnp.zeros(()))
    return State(
        step=jnp.zeros((), jnp.int32),
        seed=seed,
        params=params,
        extras=extras,
        opt_state=optimizer.init(params),
        average=(params, extras) if average else None,
        totals=dict.fromkeys(losses, zero),
    )


def kept(task: Task) -> dict[str, jax.Array]:
    """What a task keeps from step to step, before the first of them."""
    return {name: jnp.float32(value) for name, value in task.kept.items()}


def train_step(
    state: State,
    batch: Batch,
    *,
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    average: Share | None,
    axis: str | None,
) -> tuple[State, jax.Array]:
    """Takes one step, and returns the new state and the loss.

    Args:
        state: the state.
        batch: the fields that model and task read, [B, ...] each: of one device under
            pmap, of the whole machine under jit.
        model: the model.
        task: its losses.
        optimizer: what turns gradients into updates.
        average: the share by which it moves the average, if the state has one.
        axis: the mapped axis to sum over; None under a mesh, where sums are global
            and the compiler adds the same collectives, and where a training has its
            step for itself.
    """
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    key = _of_device(key, axis)

    def objective(params: Any) -> tuple[jax.Array, Any]:
        start = {"params": params, **state.extras}
        outputs, changed = trained(model, start, batch, key)
        known = {**batch, **state.extras.get(KEPT, {})}
        means = _losses(task, outputs, changed, known)
        if task.kept:
            changed[KEPT] = task.keep(outputs, known)
        # what the gradients are divided by is counted on all devices
        weights = _sum({name: mean.weight for name, mean in means.items()}, axis)
        own = sum(_over(means[name].total, weights[name]) for name in task.minimised)
        sown = _over(means[LOSSES].total, weights[LOSSES]) if LOSSES in means else 0.0
        return own + sown, (changed, means)

    grads, (extras, means) = jax.grad(objective, has_aux=True)(state.params)
    extras = {name: value for name, value in extras.items() if name not in SOWN}
    grads, means = _sum((grads, means), axis)
    if LOSS not in means:
        total = sum(_over(*means[name]) for name in task.minimised)
        means[LOSS] = Mean(total, jnp.ones(()))
    if axis is not None:
        extras = jax.lax.pmean(extras, axis)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averaged = state.average
    if average is not None:
        share = average(state.step + 1, optimizers.has_updated(opt_state))
        averaged = optax.incremental_update((params, extras), averaged, share)
    state = state.replace(
        step=state.step + 1,
        params=params,
        extras=extras,
        opt_state=opt_state,
        average=averaged,
        totals=jax.tree.map(jnp.add, state.totals, means),
    )
    return state, _over(*means[LOSS])


def eval_step(
    variables: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    task: Task,
    predict: bool,
    axis: str | None,
) -> dict[str, Any]:
    """The evaluation of each example of a batch, on the devices.

    Args:
        variables: of the model.
        batch: the fields that model and task read, and "weight", 0 for padding.
        key: raw key data of the batch, for models and tasks that draw.
        model, task: what is evaluated.
        predict: whether to make the task's predictions too.
        axis: the mapped axis, if any.

    Returns:
        "means", {name: Mean of [B]}, in which padding weighs nothing, and
        "predictions", {name: [B, ...]}, empty unless asked for.
    """
    key = _of_device(jax.random.wrap_key_data(key), axis)
    outputs = evaluated(model, variables, batch, key)
    weight = batch["weight"]
    means = {
        name: Mean(*(jnp.where(weight > 0, part * weight, 0.0) for part in mean))
        for name, mean in task.evaluate(outputs, batch).items()
    }
    predictions = task.predict(model, variables, batch, key) if predict else {}
    return {"means": means, "predictions": predictions}


def _losses(task: Task, outputs: Any, changed: Any, batch: Batch) -> dict[str, Mean]:
    """The task's losses and the modules' own, summed over the examples at hand."""
    means = {
        name: Mean(*(jnp.sum(part, dtype=jnp.float32) for part in mean))
        for name, mean in task.loss(outputs, batch).items()
    }
    sown = jax.tree.leaves(changed.get(LOSSES, {}))
    if sown:
        total = sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in sown)
        means[LOSSES] = Mean(total, jnp.ones(()))
    return means


def _over(total: jax.Array, weight: jax.Array) -> jax.Array:
    """A quotient whose divisor counts as a constant; 0 where nothing was counted."""
    weight = jax.lax.stop_gradient(weight)
    return total / jnp.where(weight == 0, 1, weight)


def _sum(tree: Any, axis: str | None) -> Any:
    return tree if axis is None else jax.lax.psum(tree, axis)


def _of_device(key: jax.Array, axis: str | None) -> jax.Array:
    # one device draws the same with an axis and without
    return jax.random.fold_in(key, 0 if axis is None else jax.lax.axis_index(axis))


def streams(model: nn.Module, key: jax.Array) -> dict[str, jax.Array]:
    """A key for each stream of randomness that the model asks for, and for "sample"."""
    names = tuple(getattr(model, "streams", STREAMS))
    keys = jax.random.split(key, max(len(names), 1))
    found = dict(zip(names, keys, strict=False))
    # what fills its slots may draw, whatever the model itself does
    return {"sample": jax.random.fold_in(key, len(names)), **found}

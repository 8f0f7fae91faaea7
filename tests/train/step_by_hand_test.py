"""One training step written out: keys, gradients, statistics, average and totals."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attn.modules import choices
from attn.tasks import Mean, Metric, Task
from attn.train import partition
from attn.train.program import Program
from tests.train import small

RATE, DECAY = 0.3, 0.9
PLAIN = {
    "optimizer": {"name": "sgd", "momentum": 0.0},
    "schedule": {"name": "constant", "peak": RATE},
    "train__average": DECAY,
    "model__dropout": 0.5,
}


def batches(count, size=small.BATCH):
    rng = np.random.default_rng(1)
    return [
        {
            "image": rng.normal(size=(size, 28, 28, 1)).astype(np.float32),
            "label": rng.integers(0, 10, size).astype(np.int32),
        }
        for _ in range(count)
    ]


def take(program, seed, taken):
    """The states before and after some steps, and their losses."""
    state = small.start(program, seed)
    before, losses = partition.fetch(state), []
    for batch in taken:
        state, loss = program.train_step(state, small.fed(program, batch))
        losses.append(float(loss))
    return before, partition.fetch(state), losses


def close(found, want):
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(want), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)


def by_hand(program, state, batch):
    """Parameters, statistics and loss after a step, from `apply` and the keys."""
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    key = jax.random.fold_in(key, 0)  # the number of the device
    dropout, sample = jax.random.split(key, 2)
    model = program.model.clone(axis_name=None)

    def loss(params):
        logits, changed = model.apply(
            {"params": params, **state.extras},
            batch["image"],
            train=True,
            rngs={"dropout": dropout, "sample": sample},
            mutable=["batch_stats"],
        )
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return each.mean(), changed

    (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    params = jax.tree.map(lambda p, g: p - RATE * g, state.params, grads)
    return params, dict(changed), float(value)


def test_two_steps_are_those_by_hand():
    program = Program(small.config(**PLAIN), jax.devices()[:1])
    taken = batches(2)
    state, found, losses = take(program, 5, taken)
    average, total = (state.params, state.extras), 0.0
    for batch, loss in zip(taken, losses, strict=True):
        params, extras, want = by_hand(program, state, batch)
        assert loss == pytest.approx(want, rel=1e-5)
        total += want * small.BATCH
        old, new = average, (params, extras)
        average = jax.tree.map(lambda a, b: DECAY * a + (1 - DECAY) * b, old, new)
        state = state.replace(step=state.step + 1, params=params, extras=extras)
    close(found.params, state.params)
    close(found.extras, state.extras)
    close(found.average, average)
    assert float(found.totals["loss"].total) == pytest.approx(total, rel=1e-5)
    assert float(found.totals["loss"].weight) == 2 * small.BATCH


def test_every_leaf_of_the_state_moves_and_the_average_is_what_is_evaluated():
    program = Program(small.config(**PLAIN), jax.devices()[:1])
    before, after, _ = take(program, 5, batches(2))
    for tree in ("params", "extras", "average", "totals"):
        pairs = zip(
            jax.tree.leaves_with_path(getattr(after, tree)),
            jax.tree.leaves(getattr(before, tree)),
            strict=True,
        )
        for (path, a), b in pairs:
            assert not np.array_equal(a, b), (tree, jax.tree_util.keystr(path))
    variables = after.variables()
    statistics = variables["batch_stats"]
    close(statistics, after.average[1]["batch_stats"])
    mean = jax.tree.leaves(statistics)[0]
    assert not np.allclose(mean, jax.tree.leaves(after.extras)[0])


def test_seeds_draw_different_masks_for_the_same_parameters():
    program = Program(small.config(**PLAIN), jax.devices()[:1])
    batch, losses = batches(1)[0], []
    params = partition.fetch(small.start(program, 0)).params
    for seed in (0, 1):
        state = partition.fetch(small.start(program, seed)).replace(params=params)
        state = program.partition.stack([state])
        _, loss = program.train_step(state, small.fed(program, batch))
        losses.append(float(loss))
    assert losses[0] != losses[1]


class Draws(nn.Module):
    """Outputs what it draws from its streams, and sows a loss of its own."""

    num_classes: int = 10
    dtype: Any = None
    axis_name: str | None = None

    streams: ClassVar[tuple[str, ...]] = ("dropout", "sample", "third")

    @nn.compact
    def __call__(self, image, *, train):
        weight = self.param("weight", nn.initializers.ones_init(), ())
        self.sow("losses", "own", 2.0 * weight)
        if train:  # what is chosen is the model's to return, and is no loss
            choices.note(self, choices.Choice(weight, weight))
            assert choices.of(self) is not None
        shape = (len(image), 1)
        drawn = [jax.random.normal(self.make_rng(name), shape) for name in self.streams]
        return weight * jnp.concatenate(drawn, axis=1)


@dataclasses.dataclass(frozen=True)
class Drawn(Task):
    """Logs the second moments of what each stream drew."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric("zero", "zero"),)
    fields: ClassVar[tuple[str, ...]] = ("label",)
    probes: ClassVar[tuple[str, ...]] = ()

    def loss(self, outputs, batch):
        del batch
        named = {
            f"stream{i}": Mean(column.sum(), jnp.ones(()))
            for i, column in enumerate(outputs.T)
        }
        named["row0"] = Mean(outputs[0].sum(), jnp.ones(()))
        return {"loss": Mean(0 * outputs, 0 * outputs), **named}

    def evaluate(self, outputs, batch):
        del batch
        zeros = jnp.zeros(len(outputs))
        return {"zero": Mean(zeros + outputs.sum(axis=1), zeros + 1)}


DRAWS = {
    "model": {"name": "tests.train.step_by_hand_test:Draws"},
    "task": {"name": "tests.train.step_by_hand_test:Drawn"},
    "optimizer": {"name": "sgd", "momentum": 0.0},
    "schedule": {"name": "constant", "peak": 0.1},
}


def test_streams_differ_and_so_do_devices():
    one = Program(small.config(**DRAWS, train__batch_size=8), jax.devices()[:1])
    eight = Program(small.config(**DRAWS, train__batch_size=8))
    batch = batches(1, 8)[0]
    (_, alone, _), (_, spread, _) = (take(p, 3, [batch]) for p in (one, eight))
    streams = [float(alone.totals[f"stream{i}"].total) for i in range(3)]
    assert len(set(streams)) == 3
    # every device has one row, and drew it with a key of its own
    assert float(spread.totals["row0"].weight) == 8
    same_keys = 8 * float(alone.totals["row0"].total)
    assert float(spread.totals["row0"].total) != pytest.approx(same_keys, rel=1e-3)


def test_losses_that_modules_sow_are_added_and_logged():
    for devices in (jax.devices()[:1], jax.devices()):
        program = Program(small.config(**DRAWS, train__batch_size=8), devices)
        before, after, _ = take(program, 3, batches(1, 8))
        assert not after.extras
        # the gradient of 2 * weight, whatever the number of devices
        moved = float(before.params["weight"] - after.params["weight"])
        assert moved == pytest.approx(0.1 * 2.0)
        total, weight = after.totals["losses"]
        assert float(total) / float(weight) == pytest.approx(2.0)


def test_an_evaluation_draws_the_same_in_every_run():
    program = Program(small.config(**DRAWS), jax.devices()[:1])
    state = small.start(program, 3)
    first, again = (small.evaluate(program, state) for _ in range(2))
    np.testing.assert_array_equal(
        first.outcomes["zero"].total, again.outcomes["zero"].total
    )
    assert len(set(first.outcomes["zero"].total)) == len(first.index)


class Linear(nn.Module):
    """A number a pixel."""

    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image, *, train):
        del train
        return nn.Dense(1, name="dense")(image)[..., 0]


@dataclasses.dataclass(frozen=True)
class Marked(Task):
    """A squared error over the marked pixels of images, those above 1."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric("square", "square"),)
    fields: ClassVar[tuple[str, ...]] = ("image", "label")
    probes: ClassVar[tuple[str, ...]] = ()

    def loss(self, outputs, batch):
        marked = (batch["image"][..., 0] > 1).astype(jnp.float32)
        squares = marked * jnp.square(outputs - batch["label"][:, None, None])
        return {"loss": Mean(squares.sum((1, 2)), marked.sum((1, 2)))}

    def evaluate(self, outputs, batch):
        return {"square": self.loss(outputs, batch)["loss"]}


def test_what_is_counted_may_all_be_on_one_of_eight_devices():
    made = {
        **DRAWS,
        "model": {"name": "tests.train.step_by_hand_test:Linear"},
        "task": {"name": "tests.train.step_by_hand_test:Marked"},
    }
    batch = batches(1)[0]
    batch["image"] = np.minimum(batch["image"], 0.5)
    batch["image"][5, 3, 4] = 2.0  # the third device's
    batch["image"][5, 7, 1] = 3.0
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        program = Program(small.config(**made), devices)
        _, after, losses = take(program, 3, [batch])
        assert float(after.totals["loss"].weight) == 2
        found.append((after.params, losses))
    (one, eight) = found
    assert one[1] == pytest.approx(eight[1], rel=1e-5)
    close(eight[0], one[0])
    # nothing marked at all: no loss, no change, nothing that is not a number
    batch["image"] = np.minimum(batch["image"], 0.5)
    before, after, losses = take(program, 3, [batch])
    assert losses == [0.0]
    close(after.params, before.params)

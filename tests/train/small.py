"""A training small enough for tests: a few steps of a tiny network on real digits."""

import copy
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

import attn
from attn.train import evaluation

BATCH = 16
TRACES = []  # one entry whenever the training of a Net is traced


class Net(nn.Module):
    """A host that compiles fast, with all that a state can hold."""

    num_classes: int
    fill: Mapping[str, Any] | None = None
    dropout: float = 0.0
    width: int = 8
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        if train:
            TRACES.append(x.shape)
        x = nn.Conv(self.width, (5, 5), (4, 4), dtype=self.dtype)(x)
        x = nn.BatchNorm(not train, axis_name=self.axis_name, dtype=self.dtype)(x)
        x = attn.create("squeeze_excite", reduction=2, dtype=self.dtype)(x, train=train)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x).mean((1, 2)))
        return nn.Dense(self.num_classes)(x).astype(jnp.float32)


def config(**changes):
    """A config; `train__steps=3` sets `config["train"]["steps"]`."""
    made = {
        "seed": 3,
        "data": {"name": "mnist_5k", "test": "test[:40]", "distortion": "r"},
        "model": {"name": "tests.train.small:Net"},
        "task": {"name": "classification"},
        "optimizer": {"name": "sgd", "weight_decay": 0.001},
        "schedule": {"name": "cosine", "peak": 0.1, "warmup": 2},
        "train": {
            "steps": 8,
            "batch_size": BATCH,
            "log_every": 2,
            "eval_every": 4,
            "save_every": 3,
        },
    }
    made = copy.deepcopy(made)
    for path, value in changes.items():
        section, _, field = path.partition("__")
        if field:
            made[section][field] = value
        else:
            made[section] = value
    return made


class Listener:
    """Keeps what a training tells."""

    def __init__(self):
        self.updates, self.notes, self.points = [], [], []

    def update(self, **values):
        self.updates.append(values)

    def note(self, text):
        self.notes.append(text)

    def point(self, k, n, name, others=()):
        self.points.append((k, n, name, *others))

    def point_done(self, summary):
        self.notes.append(summary)


def start(program, seed):
    """The state before the first step, on the devices."""
    return program.partition.stack([program.init_state(seed)])


def fed(program, batch):
    """What a step takes of a batch, on the devices."""
    taken = {name: batch[name] for name in program.fields}
    return program.partition.shard_batch([taken])


def evaluate(program, state, split="test", *, score=True):
    """The evaluation of the one training in a state."""
    (found,) = evaluation.evaluate(
        program, state.variables(), [program.dataset], split, score=score
    )
    return found

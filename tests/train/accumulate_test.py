"""Accumulated batches: a training of N goes as one of N / 2 joint batches."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from attn.train import partition
from attn.train.program import Program
from tests.train import small

STEPS = 8


class Plain(small.Net):
    """A network without statistics of a batch."""

    @nn.compact
    def __call__(self, x, *, train):
        del train
        x = nn.relu(nn.Conv(self.width, (5, 5), (4, 4))(x)).mean((1, 2))
        return nn.Dense(self.num_classes)(x)


def trained(config, batches):
    program = Program(config, jax.devices()[:1])
    state = small.start(program, 0)
    for batch in batches:
        state, _ = program.train_step(state, small.fed(program, batch))
    return partition.fetch(state)


def config(every, **train):
    """Of STEPS batches, or of as many fewer as each is larger; the rate drops."""
    return small.config(
        model={"name": f"{__name__}:Plain"},
        optimizer={"name": "adamw", "weight_decay": 0.1, "clip": 0.5},
        schedule={
            "name": "step",
            "peak": 0.1,
            "warmup": 4 // every,
            "boundaries": (6 // every,),
        },
        train={"steps": STEPS // every, "batch_size": 8 * every, **train},
    )


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    shape = (STEPS, 8, 28, 28, 1)
    images = rng.normal(size=shape).astype(np.float32)
    labels = rng.integers(0, 10, shape[:2]).astype(np.int32)
    return [{"image": i, "label": j} for i, j in zip(images, labels, strict=True)]


def test_two_batches_at_a_time_go_as_their_joint_batches(batches):
    joint = [
        jax.tree.map(lambda *parts: np.concatenate(parts), *pair)
        for pair in zip(batches[::2], batches[1::2], strict=True)
    ]
    found = trained(config(1, accumulate=2, average=0.6), batches)
    want = trained(config(2, average=0.6), joint)
    assert int(found.step) == STEPS
    for tree in ("params", "average"):
        pairs = zip(
            *(jax.tree.leaves(getattr(state, tree)) for state in (found, want)),
            strict=True,
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    # the rates were those of the schedule: others lead elsewhere
    start = Program(config(2)).init_state(0)
    moved = [
        np.abs(a - b).max()
        for a, b in zip(
            jax.tree.leaves(want.params), jax.tree.leaves(start.params), strict=True
        )
    ]
    assert max(moved) > 0.1


def test_more_batches_to_an_update_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"^config.schedule: there are 8 steps"):
        Program(config(1, accumulate=9))

"""Steps on one device, on eight, and on a mesh; averages, accumulation, bfloat16."""

import jax
import numpy as np
import pytest

from attn import models
from attn.train import partition
from attn.train import step as steps
from attn.train.program import Program
from tests.train import small

STEPS = 4


def batches(count=STEPS):
    rng = np.random.default_rng(0)
    return [
        {
            "image": rng.normal(size=(small.BATCH, 28, 28, 1)).astype(np.float32),
            "label": rng.integers(0, 10, small.BATCH).astype(np.int32),
        }
        for _ in range(count)
    ]


def trained(program, count=STEPS):
    state, losses = small.start(program, 5), []
    for batch in batches(count):
        state, loss = program.train_step(state, small.fed(program, batch))
        losses.append(float(loss))
    return partition.fetch(state), losses


def assert_close(found, want):
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(want), strict=True
    ):
        assert a.shape == b.shape
        np.testing.assert_allclose(
            a, b, rtol=1e-3, atol=1e-5, err_msg=jax.tree_util.keystr(path)
        )


RESNET = {
    "name": "resnet",
    "layout": "cifar",
    "depth": 8,
    "width": 4,
    "stem_stride": 2,
    "slots": {"block": {"residual": "cbam"}},
}


@pytest.fixture(scope="module")
def one_device():
    return trained(Program(small.config(model=RESNET), jax.devices()[:1]))


@pytest.mark.parametrize("name", ["pmap", "mesh"])
def test_eight_devices_take_the_steps_of_one(one_device, name):
    program = Program(small.config(model=RESNET, train__partition=name))
    assert program.partition.devices == 8
    state, losses = trained(program)
    np.testing.assert_allclose(losses, one_device[1], rtol=1e-5)
    assert_close(state, one_device[0])
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(),
        state.params,
        partition.fetch(small.start(program, 5)).params,
    )
    assert max(jax.tree.leaves(moved)) > 0.01


def test_the_state_has_no_device_axis_and_compiles_once():
    program = Program(small.config())
    traced = len(small.TRACES)
    state = small.start(program, 0)
    shapes = jax.tree.map(np.shape, program.abstract_state())
    for batch in batches(3):
        state, _ = program.train_step(state, small.fed(program, batch))
        assert jax.tree.map(np.shape, state) == shapes
    assert len(small.TRACES) == traced + 1


def test_the_evaluation_is_the_same_on_any_number_of_devices():
    one = Program(small.config(), jax.devices()[:1])
    eight = Program(small.config())
    a, b = (small.evaluate(p, small.start(p, 0)).values for p in (one, eight))
    assert a["examples"] == b["examples"] == 40  # of 48 rows: the rest is padding
    assert a["error"] == b["error"]
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


def test_seeds_differ_in_parameters_and_share_the_program():
    program = Program(small.config(), jax.devices()[:1])
    a, b = (partition.fetch(small.start(program, seed)).params for seed in (0, 1))
    same = partition.fetch(small.start(program, 0)).params
    leaves = lambda tree: np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
    assert np.array_equal(leaves(a), leaves(same))
    assert not np.array_equal(leaves(a), leaves(b))


def test_the_moving_average_follows_the_parameters():
    config = small.config(train__average=0.5)
    program = Program(config, jax.devices()[:1])
    state = small.start(program, 0)
    want = partition.fetch(state).params
    for batch in batches(2):
        state, _ = program.train_step(state, small.fed(program, batch))
        params = partition.fetch(state).params
        want = jax.tree.map(lambda w, p: 0.5 * w + 0.5 * p, want, params)
    assert_close(partition.fetch(state).average[0], want)
    found = partition.fetch(state.variables())["params"]
    assert_close(found, want)


def test_the_average_of_the_last_checkpoints_is_the_mean_of_their_parameters():
    """Of those at steps 3, 6 and 7; before them it is what the parameters are."""
    config = small.config(
        train__average_last=3, train__save_every=3, train__steps=7, train__batch_size=16
    )
    program = Program(config, jax.devices()[:1])
    state, params, averages = small.start(program, 0), [None], [None]
    for batch in batches(7):
        state, _ = program.train_step(state, small.fed(program, batch))
        params.append(partition.fetch(state).params)
        averages.append(partition.fetch(state.variables())["params"])
    mean = lambda *steps: jax.tree.map(
        lambda *a: np.mean(a, axis=0), *(params[step] for step in steps)
    )
    for step in (1, 2, 3):
        jax.tree.map(np.testing.assert_array_equal, averages[step], params[step])
    for step in (4, 5):
        jax.tree.map(np.testing.assert_array_equal, averages[step], params[3])
    assert_close(averages[6], mean(3, 6))
    assert_close(averages[7], mean(3, 6, 7))


def test_accumulating_two_batches_makes_one_update():
    config = small.config(train__accumulate=2)
    program = Program(config, jax.devices()[:1])
    state = small.start(program, 0)
    kernels = []
    for batch in batches(2):
        state, _ = program.train_step(state, small.fed(program, batch))
        kernels.append(partition.fetch(state).params)
    first, second = (
        np.concatenate(list(map(np.ravel, jax.tree.leaves(k)))) for k in kernels
    )
    start = jax.tree.leaves(partition.fetch(small.start(program, 0)).params)
    np.testing.assert_array_equal(first, np.concatenate(list(map(np.ravel, start))))
    assert np.abs(second - first).max() > 1e-4


def test_bfloat16_computes_near_float32_with_float32_parameters():
    found = {}
    for dtype in ("float32", "bfloat16"):
        program = Program(small.config(train__dtype=dtype), jax.devices()[:1])
        state, found[dtype] = trained(program, 1)
        assert {a.dtype for a in jax.tree.leaves(state.params)} == {np.dtype("f4")}
    assert found["float32"] != found["bfloat16"]
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=0.02)


def test_dropout_differs_between_steps_and_not_between_runs():
    still = {"name": "constant", "peak": 1e-30}
    config = small.config(model__dropout=0.5, schedule=still)
    program = Program(config, jax.devices()[:1])
    batch = batches(1)[0]

    def losses():
        state, found = small.start(program, 0), []
        for _ in range(2):
            state, loss = program.train_step(state, small.fed(program, batch))
            found.append(float(loss))
        return found

    first = losses()
    assert first == losses()
    assert first[0] != first[1]


def test_what_fills_a_slot_may_draw_in_every_model():
    """Dropout draws as it did where a model has no other stream."""
    key = jax.random.key(3)
    for name in ("bert", "transformer", "edsr", "ffa", "pan", "san", "detr"):
        found = steps.streams(models.find(name), key)
        assert set(found) == {"dropout", "sample"}
        assert found["dropout"] == jax.random.split(key, 1)[0]
        assert found["sample"] != found["dropout"]
    assert set(steps.streams(models.find("resnet"), key)) == {"dropout", "sample"}

"""Poses: losses and measures against float64 NumPy, and the parallel network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops, settings, tasks
from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.program import Program
from tests.train import small

COUNT, IMAGE, MAP, STACKS = 4, (24, 40), (12, 10), 3  # strides of 2 and 4
NAMES = ("head", "right_wrist", "left_wrist", "neck", "left_knee")
SIGMAS = (0.079, 0.062, 0.062, 0.08, 0.087)
JOINTS = len(NAMES)
DATA = {"name": "skeletons", "size": (24, 16), "train_size": 64, "eval_size": 24}
FACTS = {"joint_names": NAMES, "sigmas": SIGMAS, "num_joints": JOINTS}


def batch():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, IMAGE[::-1], (2, COUNT, JOINTS, 2)).astype(np.float32)
    visible = rng.uniform(size=(2, COUNT, JOINTS)) < 0.7
    visible[0, 1] = False  # nobody is there
    visible[0, 2] = True
    return {
        "image": rng.normal(size=(COUNT, *IMAGE, 3)).astype(np.float32),
        "keypoints": points[0],
        "visible": visible[0],
        "head": rng.uniform(6, 12, COUNT).astype(np.float32),
        "area": rng.uniform(80, 400, COUNT).astype(np.float32),
        "centred": points[1],
        "centred_visible": visible[1],
    }


def targets(points, sigma):
    y = (np.arange(MAP[0]) + 0.5)[:, None, None] - points[:, None, None, :, 1] / 2
    x = (np.arange(MAP[1]) + 0.5)[:, None] - points[:, None, None, :, 0] / 4
    return np.exp(-(x**2 + y**2) / (2 * sigma**2))


def stacks():
    """Heatmaps near the truth, the last of which finds many joints."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.5, (COUNT, STACKS, *MAP, JOINTS))
    near = targets(batch()["keypoints"].astype(np.float64), 1.0)[:, None]
    return (near + noise).astype(np.float32)


def outputs():
    maps = stacks()
    return {"heatmaps": maps[:, -1], "stacks": maps, "seen": batch()["image"]}


def task(trained=None, **more):
    made = tasks.create({"name": "keypoints", **more}, FACTS)
    return made.attach(trained) if trained else made


def distance(maps, points, visible, sigma):
    """The mean over positions and visible joints of all examples."""
    apart = maps.astype(np.float64) - targets(points.astype(np.float64), sigma)
    return (apart**2).mean(axis=(1, 2))[visible].mean()


def lost(task, outputs, batch):
    return tasks.divide(jax.device_get(jax.jit(task.loss)(outputs, batch)))


@pytest.mark.parametrize("sigma", [None, 1.6])
def test_all_stacks_are_to_be_gaussians_where_joints_are_visible(sigma):
    made = task(**({} if sigma is None else {"sigma": sigma}))
    truth = batch()["keypoints"], batch()["visible"], sigma or 1.0
    parts = [distance(stacks()[:, s], *truth) for s in range(STACKS)]
    assert made.minimised == ("loss",)
    means = lost(made, outputs(), batch())
    assert means["loss"] == pytest.approx(sum(parts), rel=1e-5)
    plain = lost(made, stacks()[:, -1], batch())
    assert plain["loss"] == pytest.approx(parts[-1], rel=1e-5)
    hidden = batch()
    hidden["keypoints"][~hidden["visible"]] = np.nan
    assert lost(made, outputs(), hidden)["loss"] == pytest.approx(means["loss"])


def test_sigma_grows_with_the_maps():
    def middle(height):
        """What loss zeros have for a joint in the middle of a pixel of the map."""
        width = 3 * height // 4
        given = {
            "image": np.zeros((1, 4 * height, 4 * width, 3), np.float32),
            "keypoints": np.full((1, JOINTS, 2), 2 * height, np.float32),
            "visible": np.ones((1, JOINTS), bool),
            "head": np.ones(1, np.float32),
        }
        maps = np.zeros((1, height, width, JOINTS), np.float32)
        return lost(task(), maps, given)["loss"] * height * width

    # the integral of a squared Gaussian is pi sigma^2
    assert middle(64) == pytest.approx(np.pi * 2**2, rel=1e-3)
    assert middle(16) == pytest.approx(np.pi, rel=1e-3)


def decoded(maps):
    """By hand, [B, J, 2]; a quarter toward the higher neighbour."""
    found = np.zeros((COUNT, JOINTS, 2))
    for b, j in np.ndindex(COUNT, JOINTS):
        one = maps[b, ..., j]
        row, column = np.unravel_index(one.argmax(), one.shape)
        x, y = column + 0.5, row + 0.5
        if 0 < column < MAP[1] - 1:
            x += 0.25 * np.sign(one[row, column + 1] - one[row, column - 1])
        if 0 < row < MAP[0] - 1:
            y += 0.25 * np.sign(one[row + 1, column] - one[row - 1, column])
        found[b, j] = x * 4, y * 2
    return found


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_poses_are_measured_by_their_visible_joints(share):
    made, given = task(share=share), batch()
    means = jax.device_get(jax.jit(made.evaluate)(outputs(), given))
    apart = np.linalg.norm(decoded(stacks()[:, -1]) - given["keypoints"], axis=-1)
    right = apart <= share * given["head"][:, None]
    seen = given["visible"]
    assert 0.1 < right[seen].mean() < 0.9
    expected = {
        "pckh": 100 * right[seen].mean(),
        "pckh_wrist": 100 * right[:, 1:3][seen[:, 1:3]].mean(),
        "pckh_knee": 100 * right[:, 4][seen[:, 4]].mean(),
        "loss": distance(stacks()[:, -1], given["keypoints"], seen, 1.0),
    }
    near = np.exp(
        -(apart**2)
        / (2 * given["area"][:, None].astype(np.float64) * (2 * np.array(SIGMAS)) ** 2)
    )
    expected["oks"] = np.mean([near[b][seen[b]].mean() for b in (0, 2, 3)])
    values = tasks.divide(means)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-4), name
    assert {m.total.shape for m in means.values()} == {(COUNT,)}
    assert all(m.weight[1] == 0 and m.total[1] == 0 for m in means.values())
    assert lost(made, outputs(), given)["pckh"] == pytest.approx(values["pckh"])
    first, *others = made.metrics
    assert (first.name, first.label) == ("pckh", f"PCKh@{share}")
    assert (first.unit, first.better) == ("%", "higher")
    kinds = [f"pckh_{kind}" for kind in ("head", "wrist", "neck", "knee")]
    assert [metric.name for metric in others] == ["oks", *kinds]
    assert {metric.name for metric in made.metrics} <= means.keys()


def test_heads_without_a_size_count_for_similarity_alone():
    given = batch()
    given["head"][0] = 0
    found = jax.device_get(jax.jit(task().evaluate)(outputs(), given))
    counts = (given["visible"].sum(1) * [0, 1, 1, 1]).tolist()
    assert found["pckh"].weight.tolist() == counts and found["pckh"].total[0] == 0
    assert found["oks"].weight.tolist() == [1, 0, 1, 1]


def test_captions_tell_how_many_joints_are_right():
    given = {name: value[:2] for name, value in batch().items()}
    given["visible"][1] = [True, True, False, True, True]
    maps = targets(given["keypoints"].astype(np.float64), 1.0)
    maps[1, ..., 3] = maps[1, ::-1, ::-1, 3]
    given["keypoints"][1, 3] = (1, 1)
    said = task().describe(maps.astype(np.float32), given, FACTS)
    count = int(given["visible"][0].sum())
    assert said[0] == (f"{count} of {count} joints", False)
    assert said[1] == ("3 of 4 joints", True)


def test_where_heads_are_not_measured_similarity_counts_alone():
    plain, made = task(), task(heads=False)
    assert [m.name for m in made.metrics] == ["oks"] and "head" not in made.fields
    given = batch()
    given["area"] *= 50
    whole = jax.jit(plain.evaluate)(outputs(), given)
    del given["head"]
    found = jax.jit(made.evaluate)(outputs(), given)
    assert found.keys() == {"loss", "oks"}
    for name, mean in found.items():
        np.testing.assert_array_equal(mean.total, whole[name].total)
    assert lost(made, outputs(), given).keys() == {"loss"}
    similar = np.asarray(found["oks"].total)
    assert similar.min() < 0.5 < similar.max()
    captions = [(f"OKS {value:.2f}", bool(value < 0.5)) for value in similar]
    assert made.describe(outputs(), given, FACTS) == captions


class Pose(nn.Module):
    """A network with memory of its training: a strided convolution and a norm."""

    num_joints: int = JOINTS
    strides: tuple = (2, 4)

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(self.num_joints, (3, 5), self.strides)(x)
        return {"heatmaps": nn.tanh(nn.BatchNorm(not train)(x))}


class Moved(nn.Module):
    """Sees the image by an affine map, of which its own heatmaps know nothing."""

    num_joints: int = JOINTS

    @nn.compact
    def __call__(self, x, *, train):
        identity = nn.initializers.constant(np.eye(2, 3))
        theta = self.param("theta", identity, (2, 3))
        theta = jnp.broadcast_to(theta, (len(x), 2, 3))
        grid = ops.affine_grid(theta, x.shape[1:3], align_corners=False)
        seen = ops.bilinear_sample(x, grid, align_corners=False, padding="zeros")
        found = Pose(self.num_joints)(x, train=train)
        return {**found, "seen": seen, "theta": theta}


class Pair(nn.Module):
    inputs = ("first", "second")


def network(**more):
    """A trained network, whose numbers are all unlike those at its start."""
    model = Pose(**more)
    start = model.init(jax.random.key(0), batch()["image"], train=False)
    rng = np.random.default_rng(2)
    draw = lambda a: (np.abs(a) + rng.uniform(0.2, 1, a.shape)).astype(np.float32)
    return model, jax.tree.map(draw, start)


def found(directory):
    assert directory == "there"
    return network()


def test_the_parallel_network_is_compared_with_the_centred_joints():
    made = task(found, parallel="there", parallel_weight=0.3)
    assert made.fields[-2:] == ("centred", "centred_visible")
    assert made.minimised == ("heatmap_loss", "parallel_loss")
    given, said = batch(), outputs()
    said["seen"] = np.random.default_rng(3).normal(size=said["seen"].shape)
    said["seen"] = said["seen"].astype(np.float32)
    means = lost(made, said, given)
    model, variables = network()
    maps = np.asarray(model.apply(variables, said["seen"], train=False)["heatmaps"])
    other = distance(maps, given["centred"], given["centred_visible"], 1.0)
    assert means["parallel_loss"] == pytest.approx(0.3 * other, rel=1e-4)
    without = {k: v for k, v in given.items() if not k.startswith("centred")}
    assert means["heatmap_loss"] == pytest.approx(lost(task(), said, without)["loss"])
    # at test there is no such branch
    del said["seen"], said["stacks"]
    evaluate = lambda made: jax.device_get(jax.jit(made.evaluate)(said, without))
    alone, beside = evaluate(task()), evaluate(made)
    assert tasks.divide(beside) == pytest.approx(tasks.divide(alone))


def test_gradients_reach_what_is_seen_as_differences_say():
    made, given = task(found, parallel="there"), batch()
    said = outputs()

    @jax.jit
    def total(seen):
        return jnp.sum(made.loss({**said, "seen": seen}, given)["parallel_loss"].total)

    seen = jnp.asarray(said["seen"])
    way = np.random.default_rng(4).normal(size=seen.shape).astype(np.float32)
    slope = float(jnp.vdot(jax.jit(jax.grad(total))(seen), way))
    step = 1e-2
    expected = float(total(seen + step * way) - total(seen - step * way)) / (2 * step)
    assert slope == pytest.approx(expected, rel=0.02)
    assert abs(slope) > 1e-3


def test_the_parallel_network_stays_as_it_is():
    """It is a constant of the step: no argument of the loss, and nothing changes."""
    model, variables = network()
    before = jax.tree.map(np.copy, variables)
    made = task(lambda directory: (model, variables), parallel="there")
    lost(made, outputs(), batch())
    jax.tree.map(np.testing.assert_array_equal, variables, before)


def shapes(tree):
    one = lambda a: jax.ShapeDtypeStruct((1, *np.shape(a)[1:]), a.dtype)
    return jax.tree.map(one, tree)


def refused(text, made, said, given=None, facts=FACTS):
    with pytest.raises(settings.Invalid, match=text):
        made.check(shapes(said), shapes(given or batch()), facts)


def test_what_does_not_fit_is_refused_before_training():
    task().check(shapes(outputs()), shapes(batch()), FACTS)
    task().check(shapes(stacks()[:, -1]), shapes(batch()), FACTS)
    task(found, parallel="there").check(shapes(outputs()), shapes(batch()), FACTS)
    refused(r"takes heatmaps.*got \(1, 3, 12, 10, 5\)", task(), stacks())
    refused("got 'logits'", task(), {"logits": stacks()[:, 0, 0, 0]})
    refused("needs num_joints=5", task(), stacks()[:, -1, ..., 1:])
    bare = tasks.create({"name": "keypoints"}, {})
    refused("needs the fact 'joint_names'.* 5 joints, got 0", bare, outputs())
    beside = task(found, parallel="there")
    alone = {"heatmaps": stacks()[:, -1]}
    refused("needs a model with the output 'seen'.*got 'heatmaps'", beside, alone)
    refused("got an output", beside, alone["heatmaps"])
    grey = {**outputs(), "seen": batch()["image"][..., :1]}
    refused("cannot read images", beside, grey)
    for more in ({"num_joints": 4}, {"strides": (4, 4)}):
        other = task(lambda _, more=more: network(**more), parallel="there")
        refused("has heatmaps of shape", other, outputs())
    with pytest.raises(settings.Invalid, match="must read 'image' alone, got first"):
        task(lambda _: (Pair(), {}), parallel="there")

    def gone(directory):
        raise settings.Invalid("gone is not there")

    with pytest.raises(settings.Invalid, match="parallel: gone is not there"):
        task(gone, parallel="there")
    for wrong in ({"sigma": 0.0}, {"share": -1.0}, {"parallel_weight": 0}):
        with pytest.raises(settings.Invalid):
            task(**wrong)


def named(model, **task):
    """A config for skeletons and a network of this file."""
    return small.config(
        data=DATA,
        model={"name": f"tests.tasks.keypoints_test:{model}"},
        task={"name": "keypoints", **task},
        train__steps=2,
        schedule__warmup=0,
    )


def test_a_run_is_the_parallel_network_of_another(tmp_path):
    one = jax.devices()[:1]
    place = tmp_path / "alone"
    alone = Program(named("Pose"), one)
    waiting = {"progress": small.Listener(), "interruption": Interruption()}
    axes = {"attention": "none", "seed": 3}
    loop.train(alone, named("Pose"), place, axes, **waiting)
    program = Program(named("Moved", parallel=str(place), parallel_weight=50.0), one)
    before = small.start(program, 3)
    theta = lambda state: np.asarray(jax.device_get(state.params["theta"]))
    first = theta(before)
    with program.dataset.train(small.BATCH, seed=3) as batches:
        batch = next(batches)
        state, _ = program.train_step(before, small.fed(program, batch))
        state, _ = program.train_step(state, small.fed(program, batch))
    # its own heatmaps do not depend on theta, so it is the other's loss that moves it
    assert np.abs(theta(state) - first).min() > 1e-6
    (run,) = program.partition.unstack(state)
    means = tasks.divide(jax.device_get(run.totals))
    assert means["loss"] == pytest.approx(
        means["heatmap_loss"] + means["parallel_loss"], rel=1e-5
    )
    found = small.evaluate(program, state).values
    assert {"loss", "pckh", "oks", "pckh_elbow"} <= found.keys()
    assert 0 <= found["pckh"] <= 100 and "parallel_loss" not in found

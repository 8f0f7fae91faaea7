"""The symmetric transformer: against NumPy, with the identity, and what it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models, ops
from tests.models.part_stn_test import alone

BACKBONE = {"depth": 8, "layout": "cifar", "width": 4}
POSE = {
    "name": "pose_resnet",
    "backbone": BACKBONE,
    "deconvolutions": 1,
    "width": 6,
}
LOCALISER = {"name": "mlp", "widths": [5]}
SMALL = {
    "num_joints": 3,
    "pose": POSE,
    "localiser": LOCALISER,
    "downsample": 2,
    "widths": (7, 9),
}
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 24, 2)).astype(np.float32)
# Turned, sheared, of another scale and place in each direction.
THETA = [[0.8, -0.3, 0.1], [0.2, 1.3, -0.15]]
alpha_pose = functools.partial(models.create, "alpha_pose")


def shapes(model, images=IMAGES):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, images)


def drawn(model, theta):
    """Random variables; all images are seen at `theta`."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        return rng.normal(size=leaf.shape, scale=1.4 * fan**-0.5).astype(np.float32)

    variables = jax.tree.map_with_path(draw, shapes(model))
    last = variables["params"]["localiser_theta"]
    last["kernel"] *= 0
    last["bias"] = np.float32(np.reshape(theta, -1))
    return variables


def run(model, variables, images=IMAGES):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


def plain(variables, images, spec=POSE):
    """The pose network by itself."""
    own = {key: tree["pose"] for key, tree in variables.items() if "pose" in tree}
    return run(models.create(**spec, num_joints=3), own, images)


def read(x, theta):
    """A map at theta (x, y, 1), pixel by pixel in float64; -1 and 1 are its edges."""
    height, width, _ = x.shape
    y = np.zeros(x.shape)
    for row, column in np.ndindex(height, width):
        at = [(2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1]
        at_x, at_y = np.float64(theta) @ at
        m, n = ((at_x + 1) * width - 1) / 2, ((at_y + 1) * height - 1) / 2
        rows = np.maximum(0, 1 - abs(n - np.arange(height)))
        columns = np.maximum(0, 1 - abs(m - np.arange(width)))
        y[row, column] = np.einsum("i,j,ijc->c", rows, columns, x)
    return y


def inverse(theta):
    return np.linalg.inv([*theta, [0, 0, 1]])[:2]


def test_with_the_identity_it_is_the_pose_network():
    model = alpha_pose(**SMALL)
    variables = drawn(model, np.eye(3)[:2])
    found = run(model, variables)
    want = plain(variables, IMAGES)
    assert np.abs(want).max() > 0.5
    assert found.keys() == {"heatmaps", "seen", "theta"}
    # Places are right to 1e-7 of the side, which weighs what neighbours differ by.
    close = {"rtol": 0, "atol": 2e-6 * np.abs(want).max()}
    np.testing.assert_allclose(found["heatmaps"], want, **close)
    np.testing.assert_allclose(found["seen"], IMAGES, rtol=1e-5, atol=1e-5)


def test_a_new_one_starts_with_the_identity():
    model = alpha_pose(**SMALL)
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), IMAGES
    )
    want = np.broadcast_to(np.eye(3)[:2], (2, 2, 3))
    np.testing.assert_array_equal(run(model, variables)["theta"], want)


def test_equals_the_papers_equations_at_a_known_theta():
    model = alpha_pose(**SMALL)
    variables = drawn(model, THETA)
    found = run(model, variables)
    seen = np.stack([read(image, THETA) for image in IMAGES])
    np.testing.assert_allclose(found["seen"], seen, rtol=1e-4, atol=1e-4)
    maps = plain(variables, np.float32(seen))
    want = np.stack([read(one, inverse(THETA)) for one in np.asarray(maps)])
    assert found["heatmaps"].shape == (2, 8, 12, 3)  # not the size of the image
    assert (want == 0).any()  # what was not seen
    np.testing.assert_allclose(found["heatmaps"], want, rtol=1e-4, atol=1e-4)


def test_the_localisation_network_decides_for_each_image():
    model = alpha_pose(**SMALL)
    variables = drawn(model, THETA)
    rng = np.random.default_rng(2)
    kernel = variables["params"]["localiser_theta"]["kernel"]
    variables["params"]["localiser_theta"]["kernel"] = np.float32(
        0.1 * rng.normal(size=kernel.shape)
    )
    found = run(model, variables)
    p = variables["params"]
    small = IMAGES.reshape(2, 8, 2, 12, 2, 2).mean((2, 4))
    y = np.float64(alone(LOCALISER, "localiser", variables, small))
    for name in ("localiser_conv", "localiser_dense", "localiser_theta"):
        y = y.reshape(2, -1) @ np.float64(p[name]["kernel"]) + p[name]["bias"]
        y = y if name == "localiser_theta" else np.maximum(y, 0)
    np.testing.assert_allclose(found["theta"], y.reshape(2, 2, 3), rtol=1e-4, atol=1e-5)
    assert np.abs(found["theta"][0] - found["theta"][1]).max() > 0.01
    for image, theta, seen in zip(IMAGES, found["theta"], found["seen"], strict=True):
        np.testing.assert_allclose(seen, read(image, theta), rtol=1e-3, atol=1e-3)


def test_the_grids_of_both_transformers_are_inverse_to_each_other():
    model = alpha_pose(**SMALL)
    capture = jax.jit(functools.partial(attn.capture, model))
    _, maps = capture(drawn(model, THETA), IMAGES)
    there, back = (maps[f"{name}/sampling_grid"].values for name in ("sstn", "sdtn"))
    assert there.shape == (2, 16, 24, 2)
    assert back.shape == (2, 8, 12, 2)
    theta = np.broadcast_to(np.float32(THETA), (2, 2, 3))
    again = ops.move_points(jnp.asarray(theta), back)
    places = ops.regular_grid((8, 12), align_corners=False)
    np.testing.assert_allclose(again, np.broadcast_to(places, again.shape), atol=1e-5)
    again = ops.move_points(ops.invert_affine(jnp.asarray(theta)), there)
    places = ops.regular_grid((16, 24), align_corners=False)
    np.testing.assert_allclose(again, np.broadcast_to(places, again.shape), atol=1e-5)


def test_the_localisation_network_learns_from_the_heatmaps():
    model = alpha_pose(**SMALL)
    variables = drawn(model, THETA)
    last = variables["params"]["localiser_theta"]
    last["kernel"] = np.full_like(last["kernel"], 0.01)

    def loss(params):
        variables_ = {**variables, "params": params}
        found, _ = model.apply(variables_, IMAGES, train=True, mutable=["batch_stats"])
        return jnp.mean(found["heatmaps"] ** 2)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for name in ("localiser", "localiser_conv", "localiser_dense", "localiser_theta"):
        sizes = [float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[name])]
        assert min(sizes) > 1e-6, name
        assert np.all(np.isfinite(sizes))


def test_networks_have_slots_and_facts():
    pose = {**POSE, "slots": {"upsample.end": "squeeze_excite"}}
    params = shapes(alpha_pose(**(SMALL | {"pose": pose})))["params"]
    assert "end" in params["pose"]["upsample0"]
    assert params["pose"]["heatmaps"]["kernel"].shape[-1] == 3
    assert params["localiser_theta"]["kernel"].shape == (9, 6)
    assert alpha_pose(**SMALL).clone().pose == alpha_pose(**SMALL).pose


class Stacked(models.Model):
    """A pose network with a map of its image in two stacks, in training."""

    num_joints: int = 1

    def __call__(self, image, *, train):
        maps = jnp.tile(image[:, ::4, ::4, :1], (1, 1, 1, self.num_joints))
        stacks = jnp.stack([-maps, jnp.cumsum(maps, axis=-1)], axis=1)
        heatmaps = {"heatmaps": stacks[:, -1]}
        return heatmaps | {"stacks": stacks} if train else heatmaps


def test_every_stack_lies_in_the_frame_of_the_image():
    pose = {"name": f"{__name__}:Stacked"}
    model = alpha_pose(**(SMALL | {"pose": pose}))
    variables = drawn(model, THETA)
    found = jax.jit(functools.partial(model.apply, train=True))(variables, IMAGES)
    stacks = Stacked(num_joints=3)(found["seen"], train=True)["stacks"]
    each = np.asarray(stacks, np.float64)
    want = [[read(one, inverse(THETA)) for one in maps] for maps in each]
    assert found["stacks"].shape == (2, 2, 4, 6, 3)
    np.testing.assert_allclose(found["stacks"], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["heatmaps"], found["stacks"][:, -1])
    assert run(model, variables).keys() == {"heatmaps", "seen", "theta"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pose": {"depth": 3}}, "pose must be the config of a model"),
        ({"pose": {"name": "pose_resnt"}}, "pose: unknown model .* 'pose_resnet'"),
        ({"pose": {**POSE, "num_joints": 4}}, "pose has num_joints=3 here, got 4"),
        ({"pose": {"name": "resnet"}}, "pose: unknown setting .* 'num_joints'"),
        ({"localiser": {"name": "mlp", "num_classes": 2}}, "without classifier"),
        ({"widths": (7, 0)}, "'widths' .* must be"),
        ({"slots": {"inputs": "cbam"}}, "did you mean 'input'"),
    ],
)
def test_says_what_would_fit(changes, says):
    with pytest.raises(ValueError, match=says):
        alpha_pose(**(SMALL | changes))

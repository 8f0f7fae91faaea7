"""ResNet against torch, its slots against torch with a doubled map, its errors."""

import functools
import pathlib
import zlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models
from attn.models import cost
from attn.settings import Invalid

# Made by make_resnet.py beside it.
GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "resnet.npz")
CASES = {
    "imagenet": {"depth": 18, "layout": "imagenet", "image": (37, 50)},
    "cifar": {"depth": 14, "layout": "cifar", "image": (9, 14), "stem_stride": 2},
    "conv2": {"depth": 20, "block": "bottleneck", "image": (11, 14)},
    "conv1": {"depth": 20, "block": "bottleneck", "image": (11, 14)},
}
CASES["conv1"]["stride_at"] = "conv1"
DOUBLE = "tests.models.probe:Double"
SLOTS = [
    "input",
    "stem",
    "block.pre",
    "block.conv2",
    "block.after_conv2",
    "block.residual",
    "block.identity",
    "block.post",
    "stage.end",
    "head",
]
small = functools.partial(
    models.create, "resnet", depth=8, layout="cifar", width=4, num_classes=5
)


def draw(path, shape):
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    if path.endswith("kernel"):
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if path.endswith(("scale", "var")):
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(size=shape) * 0.3


def made(model, images, dtype=jnp.float32):
    """Variables that depend on nothing but their paths and shapes."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))

    def value(path, leaf):
        name = "/".join(entry.key for entry in path[1:])
        return jnp.asarray(draw(name, leaf.shape), dtype)

    return jax.tree.map_with_path(value, shapes)


def case(name, **changes):
    settings = {"layout": "cifar", "width": 4, "num_classes": 5} | CASES[name]
    height, width = settings.pop("image")
    images = np.random.default_rng(0).normal(size=(3, height, width, 3))
    images = jnp.asarray(images, jnp.float32)
    model = models.create("resnet", **settings, **changes)
    return model, made(model, images), images


def assert_near(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", list(CASES))
def test_equals_torch(name):
    model, variables, images = case(name)
    apply = jax.jit(functools.partial(model.apply, train=False))
    assert_near(apply(variables, images), GOLDEN[name])


def test_normalises_and_keeps_statistics_as_torch_in_training():
    model, variables, images = case("cifar")
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, state = apply(variables, images)
    assert_near(logits, GOLDEN["cifar/train"])
    stored = [key for key in GOLDEN if key.startswith("cifar/train/")]
    for key in stored:
        stats = state["batch_stats"]
        for part in key.removeprefix("cifar/train/").split("/"):
            stats = stats[part]
        assert_near(np.stack([stats["mean"], stats["var"]]), GOLDEN[key])
    assert 2 * len(stored) == len(jax.tree.leaves(state["batch_stats"]))


@pytest.mark.parametrize("slot", SLOTS)
def test_each_slot_is_where_it_is_said_to_be(slot):
    model, variables, images = case("conv2", slots={slot: DOUBLE})
    # Eager, for then the slots share their compiled convolutions.
    assert_near(model.apply(variables, images, train=False), GOLDEN[f"conv2/{slot}"])


def test_groups_are_convolutions_of_their_own():
    images = jax.random.normal(jax.random.key(1), (2, 9, 14, 3))
    grouped = {"depth": 11, "block": "bottleneck", "width": 16}
    model = small(**grouped, cardinality=2, group_width=20)
    variables = made(model, images)
    apply = functools.partial(model.apply, train=False, capture_intermediates=True)
    logits, state = jax.jit(apply)(variables, images)
    seen = state["intermediates"]["stage2"]["block0"]
    x = np.maximum(seen["norm1"]["__call__"][0], 0)
    kernel = variables["params"]["stage2"]["block0"]["conv2"]["kernel"]
    assert kernel.shape == (3, 3, 10, 20)  # int(32 * 20 / 64) = 10 channels a group
    conv = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 2),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    halves = [conv(x[..., i : i + 10], kernel[..., i : i + 10]) for i in (0, 10)]
    want = np.concatenate(halves, axis=-1)
    assert_near(seen["conv2"]["__call__"][0], want)
    assert np.all(np.isfinite(logits))


def test_without_classes_the_last_map_comes_out():
    images = jax.random.normal(jax.random.key(1), (2, 9, 14, 3))
    slots = {"head": DOUBLE}
    whole, model = small(slots=slots), small(slots=slots, num_classes=None)
    variables = made(whole, images)
    params = dict(variables["params"])
    classifier = params.pop("classifier")
    apply = lambda model, variables: jax.jit(
        functools.partial(model.apply, train=False)
    )(variables, images)
    features = apply(model, {**variables, "params": params})
    assert features.shape == (2, 3, 4, 16)
    logits = features.mean((1, 2)) @ classifier["kernel"] + classifier["bias"][None]
    assert_near(apply(whole, variables), logits)


def test_lists_the_slots_in_order():
    assert models.find("resnet").slots() == SLOTS


def test_a_filling_of_one_block_reaches_that_block_only():
    images = jnp.ones((1, 8, 10, 3))
    slots = {
        "block.residual": "squeeze_excite",
        "stage2/block.residual": {"name": "squeeze_excite", "reduction": 2},
        "stage3/block.residual": "none",
        "stage3/block0/block.post": "pixel_attention",
        "stage1/stage.end": "squeeze_excite",
        "stem": "squeeze_excite",
    }
    model = small(slots=slots, depth=14)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    variables = jax.eval_shape(init, images)
    logits, maps = jax.eval_shape(
        functools.partial(attn.capture, model), variables, images
    )
    assert logits.shape == (1, 5)
    assert {path: m.values.shape for path, m in maps.items()} == {
        "stem/channel_gate": (1, 4),
        "stage1/block0/residual/channel_gate": (1, 4),
        "stage1/block1/residual/channel_gate": (1, 4),
        "stage1/end/channel_gate": (1, 4),
        "stage2/block0/residual/channel_gate": (1, 8),
        "stage2/block1/residual/channel_gate": (1, 8),
        "stage3/block0/post/pixel_gate": (1, 2, 3, 16),
    }
    params = variables["params"]
    hidden = lambda stage: params[stage]["block0"]["residual"]["squeeze"]["bias"].size
    assert (hidden("stage1"), hidden("stage2")) == (1, 4)


def test_a_token_attention_gets_the_tokens_of_a_map_and_its_grid():
    images = jax.random.normal(jax.random.key(1), (2, 9, 14, 3))
    place = "stage2/block.residual"
    ramp = small(slots={place: "tests.models.probe:Ramp"})
    tokens = small(slots={place: "tests.models.probe:TokenRamp"})
    variables = made(ramp, images)
    apply = lambda model: jax.jit(functools.partial(model.apply, train=False))
    want = apply(ramp)(variables, images)
    np.testing.assert_allclose(apply(tokens)(variables, images), want, rtol=1e-6)


def test_an_example_does_not_depend_on_its_batch():
    images = jax.random.normal(jax.random.key(1), (3, 9, 14, 3))
    model = small(slots={"block.residual": "squeeze_excite"})
    variables = made(model, images)
    apply = jax.jit(functools.partial(model.apply, train=False))
    alone = [apply(variables, images[i : i + 1]) for i in range(len(images))]
    assert_near(apply(variables, images), np.concatenate(alone))


def test_computes_in_bfloat16_and_answers_in_float32():
    slots = {"block.residual": "squeeze_excite"}
    images = jax.random.normal(jax.random.key(1), (3, 9, 14, 3))
    variables = made(small(slots=slots), images)

    def run(images, **settings):
        model = small(slots=slots, **settings)
        apply = functools.partial(model.apply, train=False, capture_intermediates=True)
        logits, state = jax.jit(apply)(variables, images)
        block = dict(state["intermediates"]["stage2"]["block0"])
        gate = block.pop("residual").pop("excite")["__call__"][0]
        assert gate.dtype == jnp.float32  # made of pooled statistics
        return logits, {a.dtype.name for a in jax.tree.leaves(block)}

    want, kinds = run(images)
    assert kinds == {"float32"}
    for got, kinds in (
        run(images, dtype=jnp.bfloat16),
        run(images.astype(jnp.bfloat16)),
    ):
        assert kinds == {"bfloat16"}
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())


def test_statistics_synchronise_over_devices():
    # The attention has batch statistics of its own, in both of its places.
    slots = {"block.residual": "cbam"}
    images = jax.random.normal(jax.random.key(1), (8, 9, 14, 3))
    model = small(slots=slots)
    variables = made(model, images)
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    logits, state = jax.jit(apply)(variables, images)
    synced = functools.partial(
        small(slots=slots, axis_name="data").apply, train=True, mutable=["batch_stats"]
    )
    synced = jax.pmap(synced, axis_name="data", in_axes=(None, 0), out_axes=(0, None))
    split, shared = synced(variables, images[:, None])
    assert_near(split[:, 0], logits)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
        shared,
        state,
    )


def initial(zero):
    """A few initial parameters of a small network of 64 channels."""
    model = small(width=64, zero_init_residual=zero)

    def init(images):
        params = model.init(jax.random.key(0), images, train=False)["params"]
        norms = ("norm1", "norm2", "shortcut_norm")
        scales = {name: params["stage2"]["block0"][name]["scale"] for name in norms}
        conv = params["stage1"]["block0"]["conv1"]["kernel"]
        return scales, conv, params["classifier"]["kernel"]

    return jax.jit(init)(jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_residual_starts_every_block_as_its_identity(zero):
    scales, _, _ = initial(zero)
    assert np.all(scales["norm2"] == 1 - zero)
    assert np.all(scales["norm1"] == 1)
    assert np.all(scales["shortcut_norm"] == 1)


def test_starts_with_he_normal_kernels():
    _, conv, classifier = initial(False)
    assert abs(conv.std() / np.sqrt(2 / (9 * 64)) - 1) < 0.02
    assert 0.98 < np.abs(classifier).max() * np.sqrt(256) <= 1  # 256 inputs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 51, "layout": "imagenet"}, r"51 \(valid: 10, .*, 101, 152\)"),
        ({"depth": 21}, r"6n \+ 2, got 21; the nearest is 20"),
        ({"depth": 2}, r"6n \+ 2, got 2; the nearest is 8"),
        ({"depth": 163, "block": "bottleneck"}, r"9n \+ 2, got 163.*164"),
        (
            {"depth": 18, "layout": "imagenet", "block": "bottleneck"},
            "depth 18 has block='basic', got block='bottleneck'",
        ),
        ({"width": 0}, "width of ResNet must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes"),
        ({"stem_stride": 0}, "stem_stride"),
        ({"widths": (4, 4, 8)}, r"4 numbers of at least 1, .* got \(4, 4, 8\)"),
        ({"widths": (4, 4, 0, 8)}, r"4 numbers of at least 1, .* got \(4, 4, 0, 8\)"),
        ({"cardinality": 2}, "cardinality and .* of depth 8 has block='basic'"),
        (
            {"depth": 11, "block": "bottleneck", "width": 8, "group_width": 4},
            "group_width=4 leaves a stage of width 8 no channel.*at least 8",
        ),
        ({"slots": {"block.residul": "cbam"}}, "'block.residul'.*'block.residual'"),
        ({"slots": {"stage4/block.residual": "cbam"}}, "'stage4'.*stage1, stage2"),
        ({"slots": {"stage3/block1/block.post": "cbam"}}, "'block1'.*valid: block0"),
        ({"slots": {"stage3/head": "cbam"}}, "'head' can be narrowed by at most 0"),
    ],
)
def test_says_what_would_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_an_attention_that_breaks_the_addition_is_named():
    model = small(slots={"block.residual": "tests.models.probe:Crop"})
    with pytest.raises(ValueError, match="must keep the shape of its map"):
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
        )


def test_frozen_batch_norm_is_no_parameter_and_is_the_same_in_training():
    settings = {"num_classes": None, "depth": 8, "layout": "cifar", "width": 3}
    plain = models.create("resnet", **settings)
    frozen = models.create("resnet", **settings, frozen_norm=True)
    x = np.random.default_rng(0).normal(size=(2, 7, 10, 3)).astype(np.float32)
    variables = made(plain, x)
    params = flax.traverse_util.flatten_dict(variables["params"])
    stats = flax.traverse_util.flatten_dict(variables["batch_stats"])
    of_norm = {path: a for path, a in params.items() if (*path[:-1], "mean") in stats}
    assert {path[-1] for path in of_norm} == {"scale", "bias"}
    moved = {
        "params": {path: a for path, a in params.items() if path not in of_norm},
        "batch_stats": {**stats, **of_norm},
    }
    moved = {k: flax.traverse_util.unflatten_dict(v) for k, v in moved.items()}
    shapes = functools.partial(jax.tree.map, jnp.shape)
    init = functools.partial(frozen.init, train=False)
    assert shapes(jax.eval_shape(init, jax.random.key(0), x)) == shapes(moved)
    want = jax.jit(functools.partial(plain.apply, train=False))(variables, x)
    train = functools.partial(frozen.apply, train=True, mutable=["batch_stats"])
    found, after = jax.jit(train)(moved, x)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    jax.tree.map(
        np.testing.assert_array_equal, after["batch_stats"], moved["batch_stats"]
    )


def test_without_classes_no_covariance_is_pooled():
    given = {"depth": 8, "layout": "cifar", "pooling": "covariance"}
    with pytest.raises(Invalid, match="pooling must be 'average'"):
        models.create("resnet", num_classes=None, **given)


def test_a_stage_is_dilated_or_strided():
    with pytest.raises(Invalid, match="got last_stride=2"):
        models.create("resnet", num_classes=3, dilated=True, last_stride=2)


def test_the_place_of_the_stride_is_of_bottlenecks():
    with pytest.raises(Invalid, match=r"stride_at='conv1' is of bottlenecks.* 18"):
        models.create("resnet", num_classes=3, depth=18, stride_at="conv1")


@pytest.mark.parametrize("name", ["pooled_channels", "iterations"])
def test_a_setting_of_covariances_is_refused_with_average_pooling(name):
    with pytest.raises(Invalid, match=rf"{name} is of pooling='covariance', got .*3"):
        models.create("resnet", num_classes=5, depth=8, layout="cifar", **{name: 3})


def test_covariance_pooling_reads_the_root_by_newton_schulz():
    settings = {"depth": 8, "layout": "cifar", "width": 4}
    body = models.create("resnet", num_classes=None, last_stride=1, **settings)
    settings |= {"pooling": "covariance", "pooled_channels": 24}
    whole = models.create("resnet", num_classes=5, **settings)
    x = np.random.default_rng(0).normal(size=(2, 22, 31, 3)).astype(np.float32)
    variables = made(whole, x)
    trunk = made(body, x)  # the same values, as they depend on their paths alone
    last = jax.jit(functools.partial(body.apply, train=False))(trunk, x)
    assert last.shape == (2, 11, 16, 16)  # as large as the map of the stage before

    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    stats = jax.tree.map(
        lambda a: np.asarray(a, np.float64), variables["batch_stats"]["reduce_norm"]
    )
    norm = params["reduce_norm"]
    y = np.asarray(last, np.float64) @ params["reduce_conv"]["kernel"][0, 0]
    y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    y = np.maximum(y * norm["scale"] + norm["bias"], 0).reshape(2, -1, 24)
    y -= y.mean(axis=1, keepdims=True)
    covariance = np.einsum("bpc,bpd->bcd", y, y) / y.shape[1]
    trace = np.trace(covariance, axis1=1, axis2=2)[:, None, None]
    root, inverse = covariance / trace, np.eye(24)
    for _ in range(5):
        step = (3 * np.eye(24) - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    root *= np.sqrt(trace)
    _, maps = jax.jit(functools.partial(attn.capture, whole))(variables, x)
    for got, want in zip(maps["covariance"].values, (covariance, root), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    flat = root[:, *np.triu_indices(24)]
    want = flat @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    found = jax.jit(functools.partial(whole.apply, train=False))(variables, x)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("depth", "count"), [(50, 56_929_832), (101, 75_921_960)])
def test_has_the_parameters_of_mpncov(depth, count):
    model = models.create("resnet", num_classes=1000, depth=depth, pooling="covariance")
    image = jnp.zeros((1, 64, 64, 3))
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


def test_gsop_net_has_the_published_cost():
    # Gao et al. 2019, https://arxiv.org/abs/1811.12006: GSoP-Net1, 28.05M and 6.18G
    places = ("stage2/block3", "stage3/block5", "stage4/block2")
    slots = {f"{place}/block.residual": "global_second_order" for place in places}
    settings = {"num_classes": 1000, "stride_at": "conv1", "slots": slots}
    model = models.create("resnet", last_stride=1, **settings)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == 28_054_440
    # as printed, without the products of the covariances
    covariances = (28**2 + 2 * 14**2) * 128**2
    macs = cost.macs(model.apply, variables, image, train=False) - covariances
    assert round(macs / 1e9, 2) == 6.18

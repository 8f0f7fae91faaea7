"""CaiT and XCiT, whose class token comes late: slots, errors and what moves in them.

Their logits are checked in interop/timm_test.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models
from attn.models.layers.transformer import Block

READER = "tests.models.probe:Reader"
DOUBLE = "tests.models.probe:Double"
SETTINGS = {"num_classes": 5, "depth": 2}
CASES = {
    "cait": {**SETTINGS, "patch_size": 4, "width": 12, "num_heads": 3},
    "xcit": {**SETTINGS, "patch_size": 8, "width": 16, "num_heads": 2},
}
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 24, 3)).astype(np.float32)
PLACES = ["block.pre", "mixer", "block.post", "class.mixer"]
each = pytest.mark.parametrize("name", list(CASES))


def tiny(name, **settings):
    return models.create(name, **{**CASES[name], "layer_scale": 0.5, **settings})


@functools.cache
def shapes_of(model, size):
    images = jax.ShapeDtypeStruct((3, *size, 3), jnp.float32)
    return jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), images
    )


def made(model, size=(16, 24)):
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "var":
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map_with_path(draw, shapes_of(model, size))


def run(model, variables, images=IMAGES):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


@each
def test_lists_the_slots_and_captures_every_attention(name):
    assert models.find(name).slots() == PLACES
    model = tiny(name, slots={"block1/block.post": "squeeze_excite"})
    _, maps = jax.eval_shape(
        functools.partial(attn.capture, model), made(model), IMAGES
    )
    tokens, heads = {"cait": (24, 3), "xcit": (6, 2)}[name]
    mixer = {"cait": (3, 3, 24, 24), "xcit": (3, 2, 8, 8)}[name]
    kind = {"cait": "token_matrix", "xcit": "channel_matrix"}[name]
    assert {path: m.values.shape for path, m in maps.items()} == {
        f"block0/mixer/{kind}": mixer,
        f"block1/mixer/{kind}": mixer,
        "block1/post/channel_gate": (3, model.width),
        "class0/mixer/token_matrix": (3, heads, 1, 1 + tokens),
        "class1/mixer/token_matrix": (3, heads, 1, 1 + tokens),
    }


@each
def test_slots_are_in_their_places(name):
    variables = made(tiny(name))
    logits = lambda place: run(tiny(name, slots={place: READER}), variables)
    post, pre = logits("block0/block.post"), logits("block1/block.pre")
    assert np.abs(post - run(tiny(name), variables)).max() > 1e-3
    np.testing.assert_allclose(post, pre, rtol=1e-5, atol=1e-5)
    filled = made(tiny(name, slots={"block1/mixer": READER}))["params"]
    assert "mixer" in filled["block0"]
    assert "mixer" not in filled["block1"]


@each
def test_the_class_layers_take_any_token_attention(name):
    model = tiny(
        name, slots={"class0/class.mixer": READER, "class1/class.mixer": "none"}
    )
    params = made(model)["params"]
    assert "mixer" not in params["class0"]
    assert "norm1" not in params["class1"]
    assert np.isfinite(run(model, made(model))).all()


@each
def test_layer_scale_starts_from_what_the_depth_asks_for(name):
    sizes = {"cait": {"xxs24": 1e-5, "m36": 1e-6}}
    sizes["xcit"] = {"tiny_12": 1.0, "tiny_24": 1e-5}
    for size, start in sizes[name].items():
        model = tiny(name, size=size, layer_scale=None)
        # Only what is returned is compiled.
        params = lambda model=model: model.init(jax.random.key(0), IMAGES, train=False)
        scale = lambda at, params=params: params()["params"][at]["scale2"]
        scales = jax.jit(lambda scale=scale: [scale("block0"), scale("class1")])()
        np.testing.assert_allclose(scales, start)


@each
def test_branches_of_blocks_are_left_out_alike(name):
    rates = []

    def see(run, args, kwargs, context):
        if isinstance(context.module, Block) and context.method_name == "__call__":
            rates.append(context.module.drop_path)
        return run(*args, **kwargs)

    with nn.intercept_methods(see):
        made(tiny(name, drop_path=0.25, depth=3))
    assert rates == [0.25] * 3


@each
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide width=1"),
        ({"class_layers": 0}, "class_layers of .* must be at least 1, got 0"),
        ({"size": "huge"}, "must be one of '"),
        ({"drop_path": 2.0}, r"drop_path of .* must be in \[0, 1\), got 2.0"),
        ({"slots": {"class2/class.mixer": READER}}, r"'class2'.*class0, class1\)"),
        ({"slots": {"class0/mixer": READER}}, "'class0/mixer': only blocks have 'mix"),
        ({"slots": {"block0/class.mixer": READER}}, "only class layers have"),
        ({"slots": {"class.mixer": DOUBLE}}, "'class.mixer': Double attends to maps"),
        ({"slots": {"class.mixer": "none"}}, "class token never sees the image"),
    ],
)
def test_says_what_would_fit(name, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(name, **settings)


def test_sizes_that_only_one_of_them_has():
    with pytest.raises(ValueError, match=r"patch_size=4 does not divide.*16x22"):
        run(tiny("cait"), {}, jnp.zeros((1, 16, 22, 3)))
    with pytest.raises(ValueError, match="for 24 tokens, but the image has 16"):
        model = tiny("cait")
        apply = functools.partial(model.apply, train=False)
        jax.eval_shape(apply, made(model), jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(ValueError, match=r"'patch_size' .*must be one of 8, 16, got 4"):
        tiny("xcit", patch_size=4)
    with pytest.raises(ValueError, match=r"width=18 .*patch_size=8 must be.* by 4"):
        tiny("xcit", width=18)


def test_xcit_takes_images_of_any_size_that_the_patches_divide():
    model = tiny("xcit")
    variables = made(model)
    apply = functools.partial(model.apply, train=False)
    other = jax.eval_shape(apply, variables, jnp.zeros((2, 40, 8, 3)))
    assert other.shape == (2, 5)
    with pytest.raises(ValueError, match="patch_size=8 does not divide"):
        jax.eval_shape(apply, variables, jnp.zeros((2, 40, 12, 3)))


def test_xcit_without_local_patch_interaction_has_no_convolutions_in_blocks():
    params = made(tiny("xcit", local=False))["params"]["block0"]
    assert set(params) == {
        *("norm1", "mixer", "scale1", "norm2", "mlp_in", "mlp_out", "scale2")
    }


def test_batch_statistics_of_xcit_synchronise_under_pmap():
    model = tiny("xcit", depth=1)
    variables = made(model)
    train = lambda model: functools.partial(
        model.apply, train=True, mutable=["batch_stats"]
    )
    images = np.concatenate([IMAGES, IMAGES[:1] + 1])
    want, state = jax.jit(train(model))(variables, images)
    synchronised = train(model.clone(axis_name="data"))
    run = jax.pmap(synchronised, axis_name="data", in_axes=(None, 0))
    got, states = run(variables, images[:, None])
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-3, atol=1e-3)
    for whole, part in zip(*map(jax.tree.leaves, (state, states)), strict=True):
        np.testing.assert_allclose(part[2], whole, rtol=1e-3, atol=1e-4)


@each
def test_computes_in_bfloat16_and_answers_in_float32(name):
    model = tiny(name, dtype=jnp.bfloat16)
    apply = functools.partial(model.apply, train=False, capture_intermediates=True)
    y, state = jax.eval_shape(apply, made(model), IMAGES)
    layers = [state["intermediates"][layer] for layer in ("block1", "class1")]
    mixers = [layer.pop("mixer") for layer in layers]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(layers)} == {"bfloat16"}
    outputs = [mixer["__call__"] for mixer in mixers]  # softmax is inside
    assert {leaf.dtype.name for leaf in jax.tree.leaves(outputs)} == {"bfloat16"}
    assert y.dtype == jnp.float32

"""ViT against NumPy written from the paper's equations, its slots, its errors."""

import functools
import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax import linen as nn

import attn
from attn import models, settings
from attn.modules import position
from attn.modules.position import POSITIONS

READER = "tests.models.probe:Reader"
DOUBLE = "tests.models.probe:Double"
tiny = functools.partial(
    models.create,
    "vit",
    num_classes=5,
    size="tiny",
    patch_size=4,
    width=12,
    depth=2,
)
IMAGES = np.random.default_rng(0).normal(size=(3, 8, 12, 2)).astype(np.float32)
erf = np.vectorize(math.erf)


def made(model, images=IMAGES):
    """Random variables, far from those of an initialisation."""
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, images)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


def run(model, variables, images=IMAGES):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def attention(x, p):
    """Three heads, one target at a time."""
    q, k, v = (
        np.einsum("btc,cnd->btnd", x, p[name]["kernel"]) + p[name]["bias"]
        for name in ("query", "key", "value")
    )
    y = np.zeros_like(q)
    for b, t, n in np.ndindex(q.shape[:3]):
        weights = np.exp(k[b, :, n] @ q[b, t, n] / np.sqrt(q.shape[-1]))
        y[b, t, n] = (weights / weights.sum()) @ v[b, :, n]
    return np.einsum("btnd,ndc->btc", y, p["out"]["kernel"]) + p["out"]["bias"]


def reader(x):
    return x + x.mean(1, keepdims=True)


def vit(params, images, pool, slot=None):
    """The forward pass; `slot` has a Reader in it, in block 1 where it is a block's."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    batch, height, width, _ = images.shape
    patches = [
        images[:, i : i + 4, j : j + 4].reshape(batch, -1)
        for i in range(0, height, 4)
        for j in range(0, width, 4)
    ]
    kernel = p["embed"]["kernel"].reshape(-1, 12)
    x = np.stack(patches, axis=1) @ kernel + p["embed"]["bias"]
    if pool == "class":
        x = np.concatenate([np.tile(p["class_token"], (batch, 1, 1)), x], axis=1)
    x = x + p["position"]
    for index in range(2):
        block = p[f"block{index}"]
        at = lambda place, index=index: slot == place and index == 1
        x = reader(x) if at("block.pre") else x
        y = norm(x, block["norm1"])
        x = x + (reader(y) if at("mixer") else attention(y, block["mixer"]))
        y = linear(norm(x, block["norm2"]), block["mlp_in"])
        x = x + linear(y * (1 + erf(y / np.sqrt(2))) / 2, block["mlp_out"])
        x = reader(x) if at("block.post") else x
    x = norm(x, p["norm"])
    y = x[:, 0] if pool == "class" else x.mean(1)
    if slot == "pool":
        y = y + x.mean(1)
    return linear(y, p["classifier"])


@pytest.mark.parametrize(
    ("pool", "slot"),
    [
        ("class", None),
        ("class", "block.pre"),
        ("class", "mixer"),
        ("class", "block.post"),
        ("class", "pool"),
        ("mean", None),
        ("mean", "pool"),
    ],
)
def test_equals_the_equations_with_each_slot_in_its_place(pool, slot):
    key = slot if slot in (None, "pool") else f"block1/{slot}"
    model = tiny(pool=pool, slots={key: READER} if key else None)
    variables = made(model)
    want = vit(variables["params"], IMAGES.astype(np.float64), pool, slot)
    np.testing.assert_allclose(run(model, variables), want, rtol=1e-4, atol=1e-4)


def test_lists_the_slots_in_order():
    assert models.find("vit").slots() == ["block.pre", "mixer", "block.post", "pool"]


def test_attentions_have_readable_paths_and_the_heads_of_the_model():
    slots = {
        "block1/mixer": {"name": "multi_head", "num_heads": 2},
        "block1/block.post": "squeeze_excite",
        "pool": "multi_head",
    }
    model = tiny(slots=slots)
    variables = made(model)
    _, maps = jax.eval_shape(functools.partial(attn.capture, model), variables, IMAGES)
    assert {path: m.values.shape for path, m in maps.items()} == {
        "block0/mixer/token_matrix": (3, 3, 7, 7),
        "block1/mixer/token_matrix": (3, 2, 7, 7),
        "block1/post/channel_gate": (3, 12),
        "pool/token_matrix": (3, 3, 1, 7),
    }
    _, maps = jax.eval_shape(
        functools.partial(attn.capture, tiny(pool="mean")),
        made(tiny(pool="mean")),
        IMAGES,
    )
    assert maps["block0/mixer/token_matrix"].grid == (2, 3)


def test_a_head_dim_replaces_the_heads_of_the_model():
    model = tiny(slots={"mixer": {"name": "multi_head", "head_dim": 6}})
    query = made(model)["params"]["block0"]["mixer"]["query"]["kernel"]
    assert query.shape == (12, 2, 6)


def test_a_map_attention_pools_the_patches_with_mean():
    plain, doubled = tiny(pool="mean"), tiny(pool="mean", slots={"pool": DOUBLE})
    variables = made(plain)
    bias = variables["params"]["classifier"]["bias"][None]
    want = 2 * (run(plain, variables) - bias) + bias
    np.testing.assert_allclose(run(doubled, variables), want, rtol=1e-5, atol=1e-5)


def test_an_empty_mixer_leaves_the_mlp_alone():
    model = tiny(pool="mean", slots={"block1/mixer": "none"})
    block = made(model)["params"]["block1"]
    assert set(block) == {"norm2", "mlp_in", "mlp_out"}


def test_a_rate_that_drops_everything_is_refused():
    with pytest.raises(settings.Invalid, match=r"dropout of ViT must be in \[0, 1\)"):
        tiny(dropout=10.0)


def test_dropout_is_random_in_training_only():
    model = tiny(dropout=0.5)
    variables = made(model)
    apply = jax.jit(model.apply, static_argnames="train")
    key = lambda seed: {"dropout": jax.random.key(seed)}
    one, same, other = (
        apply(variables, IMAGES, train=True, rngs=key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    kept = apply(variables, IMAGES, train=False)
    np.testing.assert_allclose(kept, run(tiny(), variables), rtol=1e-6)


def test_an_example_does_not_depend_on_its_batch():
    model = tiny()
    variables = made(model)
    alone = [run(model, variables, IMAGES[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(
        run(model, variables), np.concatenate(alone), rtol=1e-4, atol=1e-5
    )


def test_computes_in_bfloat16_and_answers_in_float32():
    variables = made(tiny())
    want = run(tiny(), variables)
    model = tiny(dtype=jnp.bfloat16)
    apply = functools.partial(model.apply, train=False, capture_intermediates=True)
    got, state = jax.jit(apply)(variables, IMAGES)
    inner = jax.tree.leaves(state["intermediates"]["block1"])
    assert {a.dtype.name for a in inner} == {"bfloat16"}
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide width=12.*: 3, 4, 6"),
        ({"depth": 0}, "depth of ViT must be at least 1, got 0"),
        ({"patch_size": 0}, "patch_size"),
        ({"size": "huge"}, "must be one of 'tiny', 'small', 'base', 'large'"),
        ({"slots": {"block2/mixer": READER}}, r"'block2'.*\(valid: block0, block1\)"),
        ({"slots": {"block0/pool": READER}}, "'pool' can be narrowed by at most 0"),
        ({"slots": {"mixers": READER}}, "did you mean 'mixer'"),
        (
            {"slots": {"pool": DOUBLE}},
            "maps, which do not hold the class.*pool='mean'",
        ),
        (
            {"slots": {"mixer": DOUBLE}},
            "nothing of the image reaches.*pool='mean'",
        ),
    ],
)
def test_says_what_would_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_a_class_token_may_read_the_image_in_one_place_only():
    tiny(slots={"mixer": DOUBLE, "pool": READER})
    tiny(slots={"mixer": DOUBLE, "block1/mixer": READER})
    tiny(slots={"mixer": DOUBLE}, pool="mean")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 14), "patch_size=4 does not divide the image of 8x14.*8x12 or 8x16 fit"),
        ((3, 8), "patch_size=4 does not divide the image of 3x8.*images of 4x8 fit"),
        ((8, 8), "position embedding is for 7 tokens, but the image has 5"),
    ],
)
def test_an_image_of_another_size_is_refused_with_those_that_fit(shape, message):
    model = tiny()
    variables = made(model)
    images = jnp.zeros((1, *shape, 2))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(model.apply, train=False), variables, images)


@pytest.mark.parametrize("name", [*POSITIONS])
def test_takes_every_position_encoding_by_name(name):
    """With it the places matter; prefix and parameters are where they belong."""
    model = tiny(position=name)
    variables = made(model)
    y = run(model, variables)
    turned = np.array(IMAGES[:, ::-1, ::-1]).reshape(3, 2, 4, 3, 4, 2)
    turned = turned[:, :, ::-1, :, ::-1].reshape(IMAGES.shape)  # patches move alone
    moved = np.abs(run(model, variables, turned) - y).max()
    # Distances in a grid turned by 180 degrees are what they were.
    assert (moved < 1e-4) == (name in ("none", "alibi_2d"))

    encoding = position.create(name, prefix=1)
    places = (7,) if name == "learned" else (2, 3)
    count = encoding.parameters(places, channels=12, num_heads=3, head_dim=4)
    bare = made(tiny(position="none"))["params"]
    size = lambda tree: sum(a.size for a in jax.tree.leaves(tree))
    times = 1 if "tokens" in encoding.acts else 2  # blocks
    assert size(variables["params"]) == size(bare) + times * count
    if count:
        of_model = variables["params"]
        assert "position" in (of_model if times == 1 else of_model["block1"]["mixer"])


def test_a_mixer_may_have_a_position_of_its_own():
    spec = {"name": "multi_head", "position": {"name": "relative_bias"}}
    params = made(tiny(slots={"block1/mixer": spec}))["params"]
    assert params["position"].shape == (1, 7, 12)
    assert "position" not in params["block0"]["mixer"]
    # 3 x 5 offsets, and those of the class token
    shapes = jax.tree.map(jnp.shape, params["block1"]["mixer"]["position"])
    assert shapes == {"table": (3, 5, 3), "prefix_table": (3, 3)}


def test_conditional_positions_come_after_the_first_block():
    model = tiny(position="conditional", pool="mean", depth=1, slots={"mixer": "none"})
    variables = made(model)
    seen = {}

    def spy(next_fun, args, kwargs, context):
        seen.setdefault(context.method_name, []).append(type(context.module).__name__)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(spy):
        model.apply(variables, IMAGES, train=False)
    calls = seen["__call__"]
    assert calls.index("Conv") < calls.index("Block") < calls.index("Conv", 2)


@pytest.mark.parametrize(
    "spec", [{"name": "learned", "trained_grid": [2, 3]}, "learned_2d", "relative_bias"]
)
def test_another_image_size_interpolates_learned_tables(spec):
    model = tiny(position=spec)
    variables = made(model)
    smooth = jax.tree.map_with_path(
        lambda path, a: jnp.full_like(a, 0.3) if "position" in str(path) else a,
        variables,
    )
    large = np.random.default_rng(4).normal(size=(3, 16, 12, 2)).astype(np.float32)
    assert np.all(np.isfinite(run(model, variables, large)))
    # A table that is the same everywhere is so on every grid.
    made_there = jax.eval_shape(
        functools.partial(model.init, jax.random.key(0), train=False), large
    )
    there = jax.tree.map_with_path(
        lambda path, s, a: jnp.full(s.shape, 0.3) if "position" in str(path) else a,
        made_there,
        variables,
    )
    np.testing.assert_allclose(
        run(model, smooth, large), run(model, there, large), rtol=1e-4, atol=1e-5
    )


def test_a_position_that_no_mixer_takes_is_refused():
    with pytest.raises(ValueError, match="'rotary' acts inside an attention, but no"):
        tiny(position="rotary", slots={"mixer": READER})
    with pytest.raises(ValueError, match="unknown position encoding 'rotery'"):
        tiny(position="rotery")
    with pytest.raises(ValueError, match="4 divides, such as 4 or 8, got 6"):
        made(tiny(position="rotary_2d", num_heads=2))


def test_a_position_may_come_from_a_config():
    """Its mappings and lists are no values that a module can be hashed by."""
    inner = {"name": "learned", "trained_grid": [2, 3]}
    config = ml_collections.ConfigDict(
        {
            "position": inner,
            "slots": {"mixer": {"name": "multi_head", "position": inner}},
        }
    )
    model = tiny(position=config.position, slots=config.slots)
    assert hash(model) == hash(model.clone())
    assert model.position == {"name": "learned", "trained_grid": (2, 3)}
    params = made(model)["params"]
    assert params["block1"]["mixer"]["position"]["position"].shape == (1, 7, 12)

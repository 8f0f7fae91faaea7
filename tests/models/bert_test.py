"""BERT against NumPy in float64, its sizes, its heads, its inputs and refusals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models, settings
from attn.models import cost
from attn.models.bert import BERT
from attn.modules.position import POSITIONS
from tests.models import transformer_test as oracle

tiny = functools.partial(
    models.create,
    "bert",
    vocab_size=11,
    max_length=8,
    size="tiny",
    width=12,
    depth=1,
    num_heads=3,
    mlp_dim=10,
)
RNG = np.random.default_rng(0)
BATCH = {
    "tokens": RNG.integers(0, 11, (3, 6)),
    "tokens_mask": np.arange(6) < np.array([[6], [4], [2]]),
    "segments": RNG.integers(0, 2, (3, 6)),
    "places": np.array([[1, 5], [3, 0], [1, 1]]),
}
erf = np.vectorize(math.erf)
gelu = lambda x: x * (1 + erf(x / np.sqrt(2))) / 2


def inputs_of(model, **changes):
    batch = {**BATCH, **changes}
    return [jnp.asarray(batch[name]) for name in model.inputs]


def made(model):
    """Random variables, far from those of an initialisation."""
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, *inputs_of(model))
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


def run(model, variables, **changes):
    return oracle.apply(model, variables, *inputs_of(model, **changes))


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-12) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def hidden(p, first, causal=False):
    """The tokens after the only block, [B, T, C]."""
    real = BATCH["tokens_mask"]
    add = lambda x, branch, q: (
        x + branch(norm(x, q)) if first else norm(x + branch(x), q)
    )
    x = p["embedding"]["embedding"][BATCH["tokens"]]
    x = x + p["token_position"]["position"][0, :6]
    x = norm(
        x + p["segment_embedding"]["embedding"][BATCH["segments"]], p["embedding_norm"]
    )
    q, seen = p["block0"], np.broadcast_to(real[:, None], (3, 6, 6))
    seen = np.tril(seen) if causal else seen
    read = lambda y: oracle.attention(y, y, q["mixer"], seen)
    x = add(x, read, q["norm1"])
    x = add(x, lambda y: linear(gelu(linear(y, q["mlp_in"])), q["mlp_out"]), q["norm2"])
    return norm(x, p["norm"]) if first else x


def in_numpy(variables):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [False, True])
def test_equals_the_equations(first):
    model = tiny(norm_first=first)
    variables = made(model)
    got = run(model, variables)
    p = in_numpy(variables)
    x = hidden(p, first)
    assert set(got) == {"masked", "is_next"}
    close(got["is_next"], linear(np.tanh(linear(x[:, 0], p["pooler"])), p["is_next"]))
    read = x[np.arange(3)[:, None], BATCH["places"]]
    read = norm(gelu(linear(read, p["masked"])), p["masked_norm"])
    want = read @ p["embedding"]["embedding"].T + p["masked_bias"]
    close(got["masked"], want)


@pytest.mark.parametrize(
    "pool, causal",
    [("class", False), ("last", False), ("mean", False), ("last", True)],
)
def test_classifies_the_pooled_vector(pool, causal):
    model = tiny(num_classes=4, pool=pool, causal=causal)
    assert model.inputs == ("tokens", "tokens_mask", "segments")
    variables = made(model)
    p = in_numpy(variables)
    x, real = hidden(p, False, causal), BATCH["tokens_mask"][:, :, None]
    y = {
        "class": x[:, 0],
        "last": x[np.arange(3), [5, 3, 1]],
        "mean": (x * real).sum(1) / real.sum(1),
    }[pool]
    want = linear(np.tanh(linear(y, p["pooler"])), p["classifier"])
    close(run(model, variables), want)


@pytest.mark.parametrize("compare", ["plain", "nli"])
def test_compares_two_texts_that_one_encoder_has_read(compare):
    """Each as if it were alone."""
    model = tiny(num_classes=2, segments=0, compare=compare, pool="mean")
    assert model.inputs == ("first", "first_mask", "second", "second_mask")
    other = {"second": BATCH["tokens"][::-1], "second_mask": BATCH["tokens_mask"][::-1]}
    both = {"first": BATCH["tokens"], "first_mask": BATCH["tokens_mask"], **other}
    given = [jnp.asarray(both[name]) for name in model.inputs]
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, *given)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    variables = jax.tree.map(draw, shapes)
    p, real = in_numpy(variables), BATCH["tokens_mask"][:, :, None]
    tokens = hidden({**p, "segment_embedding": {"embedding": np.zeros((2, 12))}}, False)
    x = (tokens * real).sum(1) / real.sum(1)
    y = x[::-1]
    parts = [x, y] if compare == "plain" else [x, y, x * y, x - y]
    z = np.maximum(linear(np.concatenate(parts, 1), p["compare_in"]), 0)
    z = np.maximum(linear(z, p["compare_out"]), 0)
    assert z.shape == (3, 10 // 2)
    close(oracle.apply(model, variables, *given), linear(z, p["classifier"]))


def count(**options):
    model = models.create("bert", **options)
    shape = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    kinds = {"tokens_mask": jax.ShapeDtypeStruct((1, 8), bool)}
    inputs = [kinds.get(name, shape) for name in model.inputs]
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return cost.parameters(jax.eval_shape(init, *inputs))


# Encoder and pooler with 30,522 words, as the released models; and with both heads.
SIZES = {
    "base": ({}, 109_482_240, 110_106_428),
    "large": ({"size": "large"}, 335_141_888, 336_226_108),
    "table 6: 3": ({"depth": 3}, 45_691_392, None),
    "table 6: 6": ({"depth": 6}, 66_955_008, None),
    "table 6: 6, 3 heads": ({"depth": 6, "num_heads": 3}, 66_955_008, None),
    "table 6: 12 of 1024": ({"width": 1024, "num_heads": 16}, 183_987_200, None),
    "cased base": ({"vocab_size": 28_996}, 108_310_272, None),
    "cased large": ({"vocab_size": 28_996, "size": "large"}, 333_579_264, None),
    # With the masked head they have 4.4, 11.3, 29.1 and 41.7 million, as published.
    "tiny": ({"size": "tiny"}, 4_385_920, None),
    "mini": ({"size": "mini"}, 11_170_560, None),
    "small": ({"size": "small"}, 28_763_648, None),
    "medium": ({"size": "medium"}, 41_373_184, None),
}


@pytest.mark.parametrize("name", list(SIZES))
def test_parameters_of_the_released_models(name):
    options, bare, whole = SIZES[name]
    options = {"vocab_size": 30_522, **options}
    width = models.create("bert", **options).sized().width
    both = count(**options)
    masked = width**2 + width + 2 * width + options["vocab_size"]
    assert both - masked - (2 * width + 2) == bare
    assert whole in (both, None)
    pooler = width**2 + width
    assert count(**options, heads=("masked",)) == bare + masked - pooler
    assert count(**options, num_classes=3) == bare + 3 * width + 3


def test_padding_changes_nothing():
    model = tiny()
    variables = made(model)
    want = run(model, variables)
    real = BATCH["tokens_mask"]
    other = np.where(real, BATCH["tokens"], (BATCH["tokens"] + 3) % 11)
    got = run(model, variables, tokens=other)
    np.testing.assert_allclose(got["is_next"], want["is_next"], rtol=1e-6)
    np.testing.assert_allclose(got["masked"][1:], want["masked"][1:], rtol=1e-6)


def test_inputs_are_those_that_it_reads():
    assert tiny().inputs == ("tokens", "tokens_mask", "segments", "places")
    bare = tiny(segments=0, heads=["is_next"])
    assert bare.inputs == ("tokens", "tokens_mask")
    variables = made(bare)
    assert not {"segment_embedding", "masked"} & set(variables["params"])
    assert set(jax.eval_shape(functools.partial(run, bare), variables)) == {"is_next"}
    assert hash(bare) == hash(bare.clone())


def test_a_causal_one_is_told_of_no_later_word():
    model = tiny(depth=2, causal=True, heads=["masked"], segments=0)
    variables, tokens = made(model), BATCH["tokens"]
    places, mask = np.tile(np.arange(6), (3, 1)), np.ones((3, 6), bool)
    read = functools.partial(run, model, variables, places=places, tokens_mask=mask)
    want = read(tokens=tokens)["masked"]
    other = np.where(np.arange(6) > 2, (tokens + 3) % 11, tokens)
    moved = np.abs(read(tokens=other)["masked"] - want).max(axis=(0, 2))
    assert (moved[:3] < 1e-5).all() and (moved[3:] > 1e-2).all()


@pytest.mark.parametrize("name", list(POSITIONS))
def test_takes_every_position_encoding_of_text(name):
    """With it the order of the words matters; those of a grid are refused."""
    if POSITIONS[name].of_grid:
        with pytest.raises(settings.Invalid, match=f"{name!r} needs a grid, and text"):
            tiny(position=name)
        return
    model = tiny(position=name, num_classes=4, pool="mean")
    real = jnp.ones((3, 6), bool)
    variables = made(model)
    y = run(model, variables, tokens_mask=real)
    turned = {key: BATCH[key][:, [0, 2, 1, 4, 3, 5]] for key in ("tokens", "segments")}
    moved = np.abs(run(model, variables, tokens_mask=real, **turned) - y).max()
    assert (moved < 1e-5) == (name == "none")


def test_slots_have_readable_paths_and_the_settings_of_the_model():
    slots = {
        "block0/mixer": {"name": "linformer", "rank": 2},
        "block1/mixer": "linear",
        "block1/block.post": "multi_head",
    }
    model = tiny(depth=2, slots=slots)
    variables = made(model)
    rows = variables["params"]["block0"]["mixer"]["key_rows"]
    assert rows.shape == (1, 2, 8)  # max_length
    capture = functools.partial(attn.capture, model)
    _, maps = jax.eval_shape(capture, variables, *inputs_of(model))
    shapes = {path: jax.tree.map(jnp.shape, m.values) for path, m in maps.items()}
    assert shapes == {
        "block0/mixer/factors": ((3, 3, 6, 2), (3, 3, 2, 6)),
        "block1/mixer/factors": ((3, 3, 6, 4), (3, 3, 4, 6)),
        "block1/post/token_matrix": (3, 3, 6, 6),
    }


def test_computes_in_bfloat16_and_answers_in_float32():
    variables = made(tiny())
    want = run(tiny(), variables)
    model = tiny(dtype=jnp.bfloat16)
    apply = functools.partial(model.apply, train=False, capture_intermediates=True)
    got, state = jax.jit(apply)(variables, *inputs_of(model))
    inner = jax.tree.leaves(state["intermediates"]["block0"])
    assert {a.dtype.name for a in inner} == {"bfloat16"}
    for name, logits in got.items():
        assert logits.dtype == jnp.float32
        span = np.abs(want[name]).max()
        np.testing.assert_allclose(logits, want[name], atol=0.06 * span)


def test_drops_after_the_embedding_each_branch_and_the_pooled_vector():
    tokens = ((3, 6, 12), 0.1)
    heads, classes = tiny(depth=2), tiny(depth=2, num_classes=4)
    assert oracle.dropped(heads, *inputs_of(heads)) == [tokens] * (1 + 2 * 2)
    found = oracle.dropped(classes, *inputs_of(classes))
    assert found == [tokens] * (1 + 2 * 2) + [((3, 12), 0.1)]


def test_every_weight_starts_as_a_normal_cut_off_at_two_deviations():
    model = tiny(width=60, vocab_size=300, max_length=40)
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(jax.random.key(0), *inputs_of(model))["params"]
    leaves = [leaf for leaf in jax.tree.leaves(params) if leaf.size >= 600]
    assert len(leaves) == 10  # two embeddings, four maps, an MLP, pooler, head
    for leaf in leaves:
        assert float(jnp.std(leaf)) == pytest.approx(0.88 * 0.02, rel=0.05)
        assert 0.038 < float(jnp.abs(leaf).max()) <= 0.0401


def test_lists_the_slots_in_order():
    assert BERT.slots() == ["block.pre", "mixer", "block.post"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide width=12"),
        ({"attention_dropout": 2.0}, r"attention_dropout of BERT must be in \[0, 1\)"),
        ({"heads": []}, "num_classes or some of the heads 'masked' and 'is_next'"),
        ({"heads": ["next"]}, "'heads'.*'masked', 'is_next'.*'next'"),
        ({"position": "relative_bias"}, r"needs a grid.*\(valid: alibi, learned, none"),
        ({"position": "alibi", "slots": {"mixer": "linear"}}, "slot 'mixer' has a"),
        ({"slots": {"mixer": "neighborhood"}}, "neighborhood needs a grid, and text"),
        ({"slots": {"block.pre": "cbam"}}, "cbam attends to maps, and text is none"),
        ({"slots": {"block1/mixer": "linear"}}, r"'block1'.*\(valid: block0\)"),
        ({"compare": "nli"}, "needs num_classes and segments=0, got None and 2"),
        (
            {"num_classes": 3, "slots": {"mixer": "none"}},
            "nothing of the text reaches the class token; pool='mean' reads all",
        ),
        ({"causal": True}, r"pool='class' of a causal BERT .*valid: 'last', 'mean'"),
        (
            {"causal": True, "pool": "last", "slots": {"mixer": "linformer"}},
            r"slot 'mixer': linformer cannot be causal \(valid: .*linear",
        ),
    ],
)
def test_says_what_would_fit(options, message):
    with pytest.raises(settings.Invalid, match=message):
        tiny(**options)


def test_without_attention_it_may_read_the_mean():
    free = {"slots": {"mixer": "none"}}
    tiny(num_classes=3, pool="mean", **free)
    tiny(heads=("masked",), **free)  # words by themselves

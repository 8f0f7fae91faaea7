"""The Transformer against NumPy in float64, its sizes, masks, decoding and refusals."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models, modules, settings
from attn.models import cost
from attn.modules.position import POSITIONS

READER = "tests.models.probe:Reader"
DOUBLE = "tests.models.probe:Double"
tiny = functools.partial(
    models.create,
    "transformer",
    vocab_size=11,
    max_length=8,
    size="small",
    width=12,
    depth=1,
    num_heads=3,
    mlp_dim=10,
)
HASTY = "tests.models.transformer_test:Hasty"
MIXERS = ("encoder.mixer", "decoder.self", "decoder.cross")
RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.integers(0, 11, (3, 6)), RNG.integers(0, 11, (3, 5))
REAL = np.arange(6) < np.array([[6], [4], [1]])
CAUSAL = np.broadcast_to(np.tril(np.ones((5, 5))), (3, 5, 5))


class Hasty(nn.Module):
    """An attention that needs all words at once."""

    @nn.compact
    def __call__(self, q, kv=None, *, kv_mask=None, causal=False, train):
        return q


def made(model):
    """Random variables, far from those of an initialisation."""
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, SOURCE, REAL, TARGET)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, variables, *inputs):
    return model.apply(variables, *inputs, train=False)


def run(model, variables, source=SOURCE, mask=REAL, target=TARGET):
    return apply(model, variables, source, jnp.asarray(mask), target)


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def attention(x, kv, p, seen):
    """Heads, one target at a time; seen [B, T, S] says which sources it reads."""
    project = lambda x, p: np.einsum("btc,cnd->btnd", x, p["kernel"]) + p.get("bias", 0)
    q, k, v = (
        project(*pair) for pair in ((x, p["query"]), (kv, p["key"]), (kv, p["value"]))
    )
    y = np.zeros((*q.shape[:3], v.shape[3]))
    for b, t, n in np.ndindex(q.shape[:3]):
        weights = np.exp(k[b, :, n] @ q[b, t, n] / np.sqrt(q.shape[-1])) * seen[b, t]
        y[b, t, n] = (weights / weights.sum()) @ v[b, :, n]
    return np.einsum("btnd,ndc->btc", y, p["out"]["kernel"]) + p["out"].get("bias", 0)


def mlp(x, p):
    hidden = np.maximum(0, x @ p["mlp_in"]["kernel"] + p["mlp_in"]["bias"])
    return hidden @ p["mlp_out"]["kernel"] + p["mlp_out"]["bias"]


def sinusoids(length, width):
    """Equations of section 3.5, entry by entry."""
    table = np.zeros((length, width))
    for place, channel in np.ndindex(table.shape):
        angle = place / 10000 ** (2 * (channel // 2) / width)
        table[place, channel] = np.cos(angle) if channel % 2 else np.sin(angle)
    return table


def expected(params, first, places):
    """The forward pass of one layer each; `places` gives what is added to a side."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    table = p["embedding"]["embedding"]
    add = lambda x, branch, q: (
        x + branch(norm(x, q)) if first else norm(x + branch(x), q)
    )

    def embed(words, side):
        return table[words] * np.sqrt(12) + places(p, side, words.shape[1])

    q, seen = p["encoder0"], np.broadcast_to(REAL[:, None], (3, 6, 6))
    x = embed(SOURCE, "source")
    x = add(x, lambda y: attention(y, y, q["mixer"], seen), q["norm1"])
    x = add(x, lambda y: mlp(y, q), q["norm2"])
    memory = norm(x, p["encoder_norm"]) if first else x
    q, seen = p["decoder0"], np.broadcast_to(REAL[:, None], (3, 5, 6))
    x = embed(TARGET, "target")
    x = add(x, lambda y: attention(y, y, q["self"], CAUSAL), q["norm1"])
    x = add(x, lambda y: attention(y, memory, q["cross"], seen), q["norm2"])
    x = add(x, lambda y: mlp(y, q), q["norm3"])
    return (norm(x, p["decoder_norm"]) if first else x) @ table.T


LEARNED = lambda p, side, length: p[f"{side}_position"]["position"][0, :length]


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({}, lambda p, side, length: sinusoids(length, 12)),
        ({"norm_first": True, "bias": True, "position": "learned"}, LEARNED),
        ({"key_dim": 2, "position": "none"}, lambda p, side, length: 0),
    ],
)
def test_equals_the_equations(options, places):
    model = tiny(**options)
    variables = made(model)
    want = expected(variables["params"], options.get("norm_first", False), places)
    np.testing.assert_allclose(run(model, variables), want, rtol=1e-4, atol=1e-4)


# Table 3 and Table 2: parameters without the embedding, and with one of 37,000 words.
ROWS = {
    "base": ({}, 44_101_632, 63_045_632),
    "A 1": ({"num_heads": 1}, 44_101_632, 63_045_632),
    "A 32": ({"num_heads": 32}, 44_101_632, 63_045_632),
    "B 16": ({"key_dim": 16}, 37_023_744, 55_967_744),
    "B 32": ({"key_dim": 32}, 39_383_040, 58_327_040),
    "C 2": ({"depth": 2}, 14_700_544, 33_644_544),
    "C 4": ({"depth": 4}, 29_401_088, 48_345_088),
    "C 8": ({"depth": 8}, 58_802_176, 77_746_176),
    "C 256": ({"width": 256}, 17_344_512, 26_816_512),
    "C 1024": ({"width": 1024}, 125_927_424, 163_815_424),
    "C ff 1024": ({"mlp_dim": 1024}, 31_506_432, 50_450_432),
    "C ff 4096": ({"mlp_dim": 4096}, 69_292_032, 88_236_032),
    "big": ({"size": "big"}, 176_283_648, 214_171_648),
}
# Millions as printed, which one vocabulary of 41,100 gives, but for "big".
PRINTED = {
    "base": 65,
    "B 16": 58,
    "B 32": 60,
    "C 2": 36,
    "C 4": 50,
    "C 8": 80,
    "C 256": 28,
    "C 1024": 168,
    "C ff 1024": 53,
    "C ff 4096": 90,
}


@pytest.mark.parametrize("row", list(ROWS))
def test_parameters_of_the_paper(row):
    options, bare, whole = ROWS[row]
    model = models.create("transformer", vocab_size=37_000, **options)
    words = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 4), bool)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    variables = jax.eval_shape(init, words, mask, words)
    assert cost.parameters(variables) == whole
    embedding = variables["params"]["embedding"]["embedding"].size
    assert whole - embedding == bare
    if row in PRINTED:
        assert round((bare + 41_100 * embedding / 37_000) / 1e6) == PRINTED[row]


def test_padding_of_the_source_changes_nothing():
    model = tiny()
    variables = made(model)
    want = run(model, variables)
    other = np.where(REAL, SOURCE, (SOURCE + 3) % 11)
    np.testing.assert_allclose(run(model, variables, other), want, rtol=1e-6)
    longer = np.pad(SOURCE, ((0, 0), (0, 2)), constant_values=7)
    got = run(model, variables, longer, np.pad(REAL, ((0, 0), (0, 2))))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert np.abs(run(model, variables, mask=np.ones_like(REAL)) - want).max() > 0.01


def test_no_word_is_told_of_later_ones():
    model = tiny()
    variables = made(model)
    changed = np.where(np.arange(5) >= 3, (TARGET + 1) % 11, TARGET)
    one, other = (run(model, variables, target=words) for words in (TARGET, changed))
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    assert np.abs(one[:, 3] - other[:, 3]).min(axis=-1).max() > 1e-3


TEXTUAL = [name for name, kind in POSITIONS.items() if not kind.of_grid]
DECODERS = [
    name
    for name in modules.names(contract="token")
    if {"causal", "decode", "cross", "kv_mask"} <= modules.find(name).card.supports
]
WAYS = {
    **{name: {"position": name} for name in TEXTUAL},
    **{
        f"{name} slots": {"slots": {"decoder": {"self": name, "cross": name}}}
        for name in DECODERS
        if name != "multi_head"
    },
    "pre-norm": {"norm_first": True, "key_dim": 2, "bias": True},
}
# Programs that run once are compiled faster than well.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def test_positions_and_attentions_that_decode():
    assert TEXTUAL == ["alibi", "learned", "none", "rotary", "sinusoidal"]
    assert {"multi_head", "linear", "performer", "talking_heads"} <= set(DECODERS)


@pytest.mark.parametrize("way", list(WAYS))
def test_decoding_with_a_cache_equals_the_whole_pass(way):
    """Of all causal attentions and of all positions that text has.

    The words come in calls of 1 and 4 of them, of 7 that the cache has places for, of
    which only the first is told what the encoder made.
    """
    model = tiny(**WAYS[way])
    variables = made(model)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(variables, source, mask, target):
        memory = model.apply(variables, source, mask, method="encode")
        whole = model.apply(variables, target, memory, method="decode")
        init = functools.partial(model.init, decode=True, method="decode")
        places = jnp.zeros((3, 7), int)
        shapes = jax.eval_shape(init, jax.random.key(0), places, memory)["cache"]
        empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        cache, parts = {"cache": empty}, []
        for words in jnp.split(target, (1,), axis=1):
            part, cache = model.apply(
                {**variables, **cache},
                words,
                None if parts else memory,
                decode=True,
                method="decode",
                mutable=["cache"],
            )
            parts.append(part)
        return whole, jnp.concatenate(parts, axis=1)

    whole, parts = both(variables, SOURCE, jnp.asarray(REAL), TARGET)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    assert whole.shape == (3, 5, 11)


def test_slots_are_where_they_are_called():
    """In either layer, and for the map of the alignment between target and source."""
    slots = {"encoder1/encoder.mixer": "linear", "decoder0/decoder.self": "performer"}
    model = tiny(depth=2, slots=slots)
    variables = made(model)
    inputs = (SOURCE, jnp.asarray(REAL), TARGET)
    _, maps = jax.eval_shape(functools.partial(attn.capture, model), variables, *inputs)
    shapes = {path: jax.tree.map(jnp.shape, m.values) for path, m in maps.items()}
    assert shapes == {
        "encoder0/mixer/token_matrix": (3, 3, 6, 6),
        "encoder1/mixer/factors": ((3, 3, 6, 4), (3, 3, 4, 6)),
        "decoder0/self/token_matrix": (3, 3, 5, 5),
        "decoder0/cross/token_matrix": (3, 3, 5, 6),
        "decoder1/self/token_matrix": (3, 3, 5, 5),
        "decoder1/cross/token_matrix": (3, 3, 5, 6),
    }
    bare = tiny(slots=dict.fromkeys(("encoder.mixer", "decoder.self"), "none"))
    params = made(bare)["params"]
    assert "mixer" not in params["encoder0"] and "self" not in params["decoder0"]


def test_computes_in_bfloat16_and_answers_in_float32():
    variables = made(tiny())
    want = run(tiny(), variables)
    model = tiny(dtype=jnp.bfloat16)
    apply = functools.partial(model.apply, train=False, capture_intermediates=True)
    got, state = jax.jit(apply)(variables, SOURCE, jnp.asarray(REAL), TARGET)
    inner = state["intermediates"]
    inner = jax.tree.leaves([inner["encoder0"], inner["decoder0"]])
    assert {a.dtype.name for a in inner} == {"bfloat16"}
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())


def dropped(model, *inputs):
    """The shapes that dropout acts on, of which rate each."""
    found = []

    def spy(next_fun, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and context.module.rate:
            found.append((args[0].shape, context.module.rate))
        return next_fun(*args, **kwargs)

    init = functools.partial(model.init, jax.random.key(0), train=False)
    with nn.intercept_methods(spy):
        jax.eval_shape(init, *inputs)
    return found


def test_drops_after_the_embeddings_and_each_branch_and_nowhere_else():
    source, target = ((3, 6, 12), 0.25), ((3, 5, 12), 0.25)
    found = dropped(tiny(depth=2, dropout=0.25), SOURCE, REAL, TARGET)
    assert found == [source] * (1 + 2 * 2) + [target] * (1 + 2 * 3)


def test_starts_as_it_says():
    model = tiny(vocab_size=300, width=60, mlp_dim=240)
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(jax.random.key(0), SOURCE, REAL, TARGET)["params"]
    std = lambda a: float(jnp.std(a))
    assert std(params["embedding"]["embedding"]) == pytest.approx(60**-0.5, rel=0.03)
    kernel = params["decoder0"]["mlp_in"]["kernel"]
    assert float(jnp.abs(kernel).max()) == pytest.approx((6 / 300) ** 0.5, rel=0.03)
    assert std(kernel) == pytest.approx((2 / 300) ** 0.5, rel=0.03)
    for name in ("query", "out"):  # uniform, as wide as high
        kernel = params["encoder0"]["mixer"][name]["kernel"]
        assert std(kernel) == pytest.approx(60**-0.5, rel=0.03)
        assert float(jnp.abs(kernel).max()) == pytest.approx((3 / 60) ** 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide width=12"),
        ({"depth": 0}, "depth of Transformer must be at least 1, got 0"),
        ({"slots": {"decoder.self": HASTY}}, "Hasty cannot go on word by word"),
        ({"slots": {"decoder.cross": HASTY}}, "Hasty cannot go on word by word"),
        ({"dropout": 1.0}, r"dropout of Transformer must be in \[0, 1\), got 1.0"),
        (
            {"position": "rotary_2d"},
            r"'rotary_2d' needs a grid, and text has none \(valid: alibi, learned,",
        ),
        (
            {"position": "rotary", "slots": {"decoder.self": "linear"}},
            "'rotary' acts inside an attention, but no attention in the slot"
            " 'decoder.self'",
        ),
        (
            {"slots": {"decoder.self": "cross_covariance"}},
            r"slot 'decoder.self': cross_covariance cannot be causal \(valid: .*linear",
        ),
        (
            {"slots": {"decoder0/decoder.cross": "linformer"}},
            "cannot attend to other tokens than its own",
        ),
        ({"slots": {"encoder.mixer": "window"}}, "window needs a grid"),
        ({"slots": {"block.post": "squeeze_excite"}}, "attends to maps, and text is"),
        ({"slots": {"block.pre": READER}}, "Reader cannot leave out padding"),
        (
            {"slots": {"decoder0/encoder.mixer": "linear"}},
            "only layers of the encoder have 'encoder.mixer'",
        ),
        (
            {"slots": {"encoder0/decoder.self": "linear"}},
            "only layers of the decoder have 'decoder.self'",
        ),
        (
            {"slots": {"encoder1/encoder.mixer": "linear"}},
            r"'encoder1'.*\(valid: encoder0, decoder0\)",
        ),
        (
            {
                "slots": {
                    "encoder.mixer": {"name": "multi_head", "position": "alibi_2d"}
                }
            },
            "'alibi_2d' needs a grid",
        ),
        (
            {
                "key_dim": 2,
                "slots": dict.fromkeys(MIXERS, "linear"),
            },
            "key_dim=2 is a setting that no attention of this Transformer has",
        ),
        (
            {
                "key_dim": 2,
                "slots": {
                    f"{place.partition('.')[0]}0/{place}": "linear" for place in MIXERS
                },
            },
            "key_dim=2 is a setting that no attention of this Transformer has",
        ),
    ],
)
def test_says_what_would_fit(options, message):
    with pytest.raises(settings.Invalid, match=message):
        tiny(**options)


def test_more_words_than_a_learned_position_has_are_refused():
    model = tiny(position="learned")
    variables = made(model)
    words = np.zeros((1, 9), int)
    with pytest.raises(settings.Invalid, match="at most max_length=8 tokens, got 9"):
        run(model, variables, words, np.ones((1, 9), bool), words)


def test_multiply_adds_are_those_of_the_layers_and_of_no_map():
    source, target, width, mlp, words = 6, 5, 12, 10, 11
    texts = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (source, target)]
    texts.insert(1, jax.ShapeDtypeStruct((1, source), bool))
    start = functools.partial(tiny().init, train=False)
    variables = jax.eval_shape(start, jax.random.key(0), *texts)

    def attention(asks, asked):  # projections, scores and sums
        return 2 * (asks + asked) * width**2 + 2 * asks * asked * width

    layers = 2 * (source + target) * width * mlp + target * width * words
    reads = attention(source, source) + attention(target, target)
    reads += attention(target, source)
    found = cost.macs(tiny().apply, variables, *texts, train=False)
    assert found == reads + layers


def test_one_layer_with_an_attention_that_has_a_key_dim_is_enough():
    slots = {**dict.fromkeys(MIXERS, "linear"), "encoder0/encoder.mixer": "multi_head"}
    tiny(key_dim=2, slots=slots)

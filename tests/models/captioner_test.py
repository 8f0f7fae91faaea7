"""Captioners: the recurrent decoder against NumPy, decoding against teacher forcing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import capture, decoding, models, settings
from attn.models import cost

SMALL = {
    "vocab_size": 11,
    "width": 8,
    "embedding": 7,
    "backbone": {"depth": 8, "layout": "cifar", "width": 4},
}
TEXT = {"decoder": "transformer", "num_heads": 2, "depth": 2, "mlp_dim": 10}
KINDS = {
    "soft": {},
    "gated": {"slots": {"decoder.cross": "gated_soft"}},
    "mean": {"slots": {"decoder.cross": "none"}},
    "first": {"slots": {"decoder.cross": "none"}, "pool": "first"},
    "text": TEXT,
}
START, END = 10, 1
LENGTH = 6


def made(**changes):
    return models.create("captioner", **{**SMALL, **changes})


def maps(seed=0, batch=3):
    """What an encoder made: [B, 2, 3, 16]."""
    return jax.random.normal(jax.random.key(seed), (batch, 2, 3, 16))


def sentences(batch=3):
    return jax.random.randint(jax.random.key(1), (batch, LENGTH), 0, 11)


@functools.cache
def known(kind):
    """A captioner, and variables of its decoder that are all random."""
    model = made(**KINDS[kind])
    init = jax.jit(functools.partial(model.init, method="decode"))
    variables = init(jax.random.key(0), sentences(), maps())
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    pairs = zip(leaves, keys, strict=True)
    leaves = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in pairs]
    return model, jax.tree.unflatten(tree, leaves)


@functools.cache
def forced(kind):
    """Logits of all words, [3, L, V]."""
    model, variables = known(kind)
    apply = jax.jit(functools.partial(model.apply, method="decode"))
    return np.asarray(apply(variables, sentences(), maps()))


@pytest.mark.parametrize("kind", ["soft", "first", "text"])
def test_going_on_word_by_word_is_teacher_forcing(kind):
    model, variables = known(kind)
    call = {"decode": True, "method": "decode"}
    start = jax.jit(functools.partial(model.init, **call))
    cache = start(jax.random.key(0), sentences(), maps())["cache"]
    step = jax.jit(functools.partial(model.apply, mutable=["cache"], **call))
    found, memory = [], maps()
    for first, last in ((0, 1), (1, 2), (2, 4), (4, 6)):  # two words at once, too
        words = sentences()[:, first:last]
        logits, changed = step({**variables, "cache": cache}, words, memory)
        cache, memory = changed["cache"], None
        found.append(logits)
    np.testing.assert_allclose(np.concatenate(found, 1), forced(kind), atol=2e-5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oracle(params, words, annotations, gated):
    """Equations 1 to 7 for one example, in float64, word by word."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["writer"])
    linear = lambda name, x, of=p: x @ of[name]["kernel"] + of[name].get("bias", 0)
    mean = annotations.mean(axis=0)
    c, h = (np.tanh(linear(name, mean)) for name in ("start_memory", "start_state"))
    logits, weights = [], []
    for word in words:
        known = p["embedding"]["embedding"][word]
        slot = p["cell"]["cross"]
        scores = np.tanh(linear("key", annotations, slot) + linear("query", h, slot))
        scores = scores @ slot["score"]
        alpha = np.exp(scores) / np.exp(scores).sum()
        z = alpha @ annotations
        if gated:
            z = z * sigmoid(linear("gate_of_query", h, slot))
        gates = linear("gates_of_words", known)
        gates = gates + linear("gates", np.concatenate([h, z]), p["cell"])
        i, f, o, g = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hidden = known + linear("state_out", h) + linear("context_out", z)
        logits.append(linear("words", np.tanh(hidden)))
        weights.append(alpha)
    return np.array(logits), np.array(weights)


@pytest.mark.parametrize("kind", ["soft", "gated"])
def test_the_recurrent_decoder_is_that_of_the_paper(kind):
    model, variables = known(kind)
    apply = functools.partial(model.apply, method=lambda m, *args: m.writer(*args))
    logits, steps = jax.jit(apply)(variables, sentences(), maps())
    for i in range(3):
        annotations = np.asarray(maps()[i], np.float64).reshape(6, 16)
        expected, weights = oracle(
            variables["params"], sentences()[i], annotations, kind == "gated"
        )
        np.testing.assert_allclose(logits[i], expected, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(steps.attention[i], weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["soft"])
def test_the_score_of_a_beam_is_that_of_its_words(kind):
    """So each beam has gone on from a state of its own."""
    model, variables = known(kind)
    search = functools.partial(
        decoding.generate,
        Given(model),
        start=START,
        end=END,
        length=LENGTH,
        beams=3,
        keep=3,
        penalty=decoding.length_penalty(0.0),
        never=[0, START],
    )
    found = jax.jit(lambda memory: search(variables, [memory]))(maps())
    apply = jax.jit(functools.partial(model.apply, method="decode"))
    for k in range(3):
        words = np.asarray(found.tokens[:, k])
        before = np.concatenate([np.full((3, 1), START), words[:, :-1]], axis=1)
        logits = np.asarray(apply(variables, before, maps()), np.float64)
        logits[..., [0, START]] = -np.inf
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        own = np.take_along_axis(logits, words[..., None], axis=-1)[..., 0]
        real = np.cumsum(words == END, axis=1) - (words == END) == 0
        np.testing.assert_allclose(
            np.where(real, own, 0).sum(axis=1), found.scores[:, k], rtol=1e-4
        )
    assert len({tuple(row) for row in np.asarray(found.tokens[0])}) > 1


class Given:
    """A captioner whose sources are the maps themselves."""

    def __init__(self, model):
        self.model = model
        self.init = model.init

    def apply(self, variables, *args, method, **kwargs):
        if method == "encode":
            return args[0]
        return self.model.apply(variables, *args, method=method, **kwargs)


def test_the_mean_does_not_tell_places_and_is_read_at_every_word():
    model, variables = known("mean")
    apply = jax.jit(functools.partial(model.apply, method="decode"))
    turned = apply(variables, sentences(), maps()[:, ::-1, ::-1])
    np.testing.assert_allclose(turned, forced("mean"), atol=1e-5)
    first = jax.jit(functools.partial(known("first")[0].apply, method="decode"))
    once = np.asarray(first(variables, sentences(), maps()))
    np.testing.assert_allclose(once[:, 0], forced("mean")[:, 0], atol=1e-6)
    assert np.abs(once[:, 1:] - forced("mean")[:, 1:]).max() > 0.01


@functools.cache
def whole(**slot):
    """A captioner with hard attention, its variables, and what it does in training."""
    slot = {"name": "hard_attention", **slot}
    model = made(slots={"decoder.cross": slot}, dropout=0.0)
    image = jax.random.normal(jax.random.key(5), (40, 8, 12, 3))
    words = sentences(40)
    init = jax.jit(functools.partial(model.init, train=False))
    rngs = {"params": jax.random.key(0), "sample": jax.random.key(1)}
    variables = init(rngs, image, words)
    score = variables["params"]["writer"]["cell"]["cross"]
    score["score"] = 4 * score["score"]

    @jax.jit
    def train(variables):
        return model.apply(
            variables,
            image,
            words,
            train=True,
            rngs={"sample": jax.random.key(3), "dropout": jax.random.key(4)},
            mutable=["batch_stats", "choices"],
        )[0]

    return model, variables, image, words, train(variables)


def test_what_was_drawn_is_among_the_outputs():
    model, variables, image, words, drawn = whole(expectation=0.0)
    assert set(drawn) == {"logits", "attention", "log_prob", "entropy"}
    assert drawn["log_prob"].shape == drawn["entropy"].shape == (40, LENGTH)
    one_hot = np.asarray(drawn["attention"]).reshape(40, LENGTH, -1)
    assert (one_hot.max(axis=-1) == 1).all() and (one_hot.sum(axis=-1) == 1).all()
    places = one_hot.argmax(axis=-1)
    assert (places[:, 1:] != places[:, :1]).any()  # it draws at each word
    frozen, _ = jax.jit(
        lambda v: model.apply(v, image, train=True, method="encode", mutable=True)
    )(variables)
    steps = jax.jit(
        lambda v, memory: model.apply(
            v, words, memory, method=lambda m, *args: m.writer(*args)
        )[1]
    )(variables, frozen)
    soft = np.asarray(steps.attention)[:, 0]  # before the first word all is alike
    own = np.take_along_axis(soft, places[:, :1], axis=-1)[:, 0]
    np.testing.assert_allclose(drawn["log_prob"][:, 0], np.log(own), rtol=1e-4)
    entropy = -(soft * np.log(soft)).sum(axis=-1)
    np.testing.assert_allclose(drawn["entropy"][:, 0], entropy, rtol=1e-4)


def drawn_by(**changes):
    """What a captioner returns in training, and the choices that were noted in it."""
    model = made(dropout=0.0, **changes)
    image, words = jax.random.normal(jax.random.key(5), (2, 8, 12, 3)), sentences(2)
    rngs = {name: jax.random.key(k) for k, name in enumerate(("sample", "dropout"))}
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init({"params": jax.random.key(2), **rngs}, image, words)
    apply = functools.partial(
        *(model.apply, variables, image, words),
        train=True,
        rngs=rngs,
        mutable=["batch_stats", "choices"],
    )
    return jax.jit(apply)()


HARD = {"name": "hard_attention", "expectation": 0.0}


def test_what_the_layers_of_a_transformer_drew_is_rewarded_together():
    backbone = {**SMALL["backbone"], "widths": (4, 4, 4, 8)}
    changes = {**TEXT, "backbone": backbone, "slots": {"decoder.cross": HARD}}
    drawn, changed = drawn_by(**changes)
    layers = [
        changed["choices"]["writer"][f"decoder{k}"]["cross"]["choice"][0]
        for k in range(2)
    ]
    for name in ("log_prob", "entropy"):
        want = sum(np.asarray(getattr(layer, name)) for layer in layers)
        assert drawn[name].shape == (2, LENGTH)
        np.testing.assert_allclose(drawn[name], want, rtol=1e-5)
    assert np.any(np.asarray(layers[0].log_prob) != layers[1].log_prob)


def test_what_one_of_several_attentions_drew_is_rewarded():
    first, _ = drawn_by(slots={"decoder.cross": [HARD, "additive_soft"]})
    both, _ = drawn_by(slots={"decoder.cross": [HARD, HARD]})
    assert first["log_prob"].shape == both["log_prob"].shape == (2, LENGTH)
    assert np.all(both["entropy"] > 1.5 * first["entropy"])


def test_an_attention_without_values_needs_a_map_as_wide_as_the_layers():
    says = "'decoder.cross' returns 16 channels, .* and the layer has 8"
    with pytest.raises(settings.Invalid, match=says):
        drawn_by(**TEXT, slots={"decoder.cross": "additive_soft"})


@pytest.mark.parametrize(
    "slots", [{"decoder.cross": "linear"}, {"decoder1/decoder.cross": "none"}]
)
def test_what_words_read_of_each_other_is_not_taken_for_the_image(slots):
    drawn, _ = drawn_by(**TEXT, slots=slots)
    assert set(drawn) == {"logits"}


def test_gumbel_needs_no_reward():
    *_, drawn = whole(estimator="gumbel", expectation=0.0)
    assert set(drawn) == {"logits", "attention"}


def test_the_reward_is_foretold_by_the_state_before_each_word():
    model = made(baseline=True)
    image = jax.random.normal(jax.random.key(5), (2, 8, 12, 3))
    words = sentences(2)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), image, words)

    @jax.jit
    def expected(params, words):
        given = {**variables, "params": params}
        return model.apply(given, image, words, train=False)["baseline"]

    params = variables["params"]
    own = params["writer"].pop("baseline")
    whole = lambda own: {**params, "writer": {**params["writer"], "baseline": own}}
    found = np.asarray(expected(whole(own), words))
    assert found.shape == (2, LENGTH)
    changed = np.asarray(expected(whole(own), words.at[:, 2].add(1) % 9))
    np.testing.assert_allclose(changed[:, :3], found[:, :3], rtol=1e-5)
    assert (np.abs(changed[:, 3:] - found[:, 3:]) > 1e-5).any()
    gradient = jax.grad(lambda p: expected(p, words).sum())(whole(own))
    kernel = gradient["writer"].pop("baseline")["kernel"]
    assert np.any(kernel) and not any(map(np.any, jax.tree.leaves(gradient)))
    with pytest.raises(settings.Invalid, match="decoder='lstm'"):
        made(decoder="transformer", slots={}, baseline=True)


def test_what_attention_makes_of_the_map_is_made_once():
    """Another word costs its own layers, and scores and sums of the places."""
    model, places, channels = made(), 6, 16
    width, embedding, words = SMALL["width"], SMALL["embedding"], SMALL["vocab_size"]
    image = jax.ShapeDtypeStruct((1, 8, 12, 3), jnp.float32)

    def macs(length):
        said = jax.ShapeDtypeStruct((1, length), jnp.int32)
        init = functools.partial(model.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), image, said)
        return cost.macs(model.apply, variables, image, said, train=False)

    lstm = 4 * width * (embedding + width + channels)
    attention = width * width + places * (width + channels)
    logits = embedding * (width + channels + words)
    assert macs(6) - macs(5) == lstm + attention + logits


def test_maps_are_captured_with_their_grid():
    model, variables, image, words, _ = whole(expectation=0.0)
    captured = jax.jit(functools.partial(capture, model))
    outputs, found = captured(variables, image, words)
    (name,) = found
    assert name == "writer/token_matrix"
    assert found[name].grid == (2, 3)
    assert found[name].values.shape == (40, 1, LENGTH, 6)
    flat = np.asarray(outputs["attention"]).reshape(40, 1, LENGTH, 6)
    np.testing.assert_array_equal(found[name].values, flat)


def test_a_frozen_backbone_gets_no_gradient_and_keeps_its_statistics():
    model = made(frozen=True)
    image, words = jnp.ones((1, 8, 12, 3)), sentences(1)
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), image, words
    )
    variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.1, s.dtype), shapes)

    @jax.jit
    def gradient(params):
        rngs = {"dropout": jax.random.key(0)}
        given = {**variables, "params": params}
        call = lambda p: model.apply(
            given | {"params": p}, image, words, train=True, rngs=rngs
        )
        return jax.grad(lambda p: call(p)["logits"].std())(params)

    found = gradient(variables["params"])
    size = lambda tree: sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree))
    assert size(found["backbone"]) == 0 < size(found["writer"])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_reads_the_last_map_of_a_vgg(norm, frozen):
    vgg = {"depth": 11, "widths": (2, 3, 4, 6, 8), "norm": norm}
    gate = {"name": "squeeze_excite", "reduction": 2}
    model = made(
        backbone={"name": "vgg", **vgg},
        frozen=frozen,
        slots={"decoder.cross": "additive_soft", "backbone/stage5/block.post": gate},
    )
    image, words = jax.random.normal(jax.random.key(0), (2, 37, 70, 3)), sentences(2)
    init = functools.partial(model.init, train=False)
    variables = jax.jit(init)(jax.random.key(1), image, words)
    assert "post" in variables["params"]["backbone"]["stage5"]["block1"]
    alone = models.create(
        "vgg",
        num_classes=None,
        slots={"stage5/block.post": gate},
        frozen_norm=norm and frozen,
        **vgg,
    )
    own = {kind: tree["backbone"] for kind, tree in variables.items()}
    want = jax.jit(functools.partial(alone.apply, train=False))(own, image)
    assert want.shape == (2, 2, 4, 8)
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    np.testing.assert_allclose(encode(variables, image), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": "first"}, "its slot 'decoder.cross' must be 'none'"),
        ({**TEXT, "pool": "first"}, "is of an LSTM"),
        ({"depth": 3}, "depth=3 is of a Transformer"),
        ({"num_heads": 2}, "num_heads=2 is of a Transformer"),
        ({"mlp_dim": 5}, "mlp_dim=5 is of a Transformer"),
        ({**TEXT, "num_heads": 3}, "num_heads=3 does not divide width=8"),
        ({"slots": {"decoder.self": "multi_head"}}, "'decoder.self'"),
        ({"slots": {"decoder.cross": "cbam"}}, "attends to maps"),
        ({"slots": {"decoder.cross": "neighborhood"}}, "cannot|needs a grid"),
        ({"slots": {"decoder.cross": "linformer"}}, "cannot"),
        ({**TEXT, "slots": {"backbone/decoder.cross": "linear"}}, "only decoder has"),
        ({"backbone": {"depth": 7, "layout": "cifar"}}, "6n \\+ 2"),
        ({"backbone": {"name": "vit"}}, "is a resnet or a vgg, got 'vit'"),
        (
            {"backbone": {"name": "vgg"}, "slots": {"block.residual": "cbam"}},
            "unknown slot 'block.residual'.*block.post",
        ),
        ({"backbone": {"frozen_norm": True}}, "a setting of a captioner itself"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(changes, message):
    with pytest.raises(settings.Invalid, match=message):
        made(**changes)


def test_positions_need_channels_that_they_divide():
    model = made(position="sine", backbone={**SMALL["backbone"], "widths": (3,) * 4})
    with pytest.raises(settings.Invalid, match="channels 4 divides, got 3"):
        jax.eval_shape(
            functools.partial(model.init, train=False),
            jax.random.key(0),
            jnp.ones((1, 8, 12, 3)),
            sentences(1),
        )

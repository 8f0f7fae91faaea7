"""Models with weights of transformers against its outputs, and what is refused.

The goldens are of its own code: `tests/golden/make_transformers.py`.
"""

import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from attn import interop, models, settings

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
MAKER = runpy.run_path(str(FOLDER / "make_transformers.py"))
SIZES = {"width": 12, "depth": 2, "num_heads": 3, "mlp_dim": 20}
BERT = {**SIZES, "vocab_size": 31, "max_length": 11}
MARIAN = {
    **SIZES,
    "vocab_size": 29,
    "bias": True,
    "activation": "silu",
    "epsilon": 1e-5,
    "output_bias": True,
    "position": {"name": "sinusoidal", "order": "halves"},
}
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5)


@functools.cache
def golden():
    with np.load(FOLDER / "transformers.npz") as file:
        return dict(file)


def state_dict(case):
    """The weights of the golden: names and shapes are stored, values are drawn."""
    names, shapes = golden()[f"{case}/names"], golden()[f"{case}/shapes"]
    sizes = [tuple(map(int, shape.split("x"))) for shape in shapes]
    draw = MAKER["draw"]
    return {str(n): draw(str(n), s) for n, s in zip(names, sizes, strict=True)}


def marian(**changes):
    return models.create("transformer", **{**MARIAN, **changes})


def test_there_is_a_golden_for_every_model_with_rules():
    named = {name for name in models.names() if models.find(name).transformers}
    assert named == {"bert", "detr", "transformer"}


def bert(**changes):
    return models.create("bert", **{**BERT, **changes})


def batch(model):
    """The golden's words as the model takes them; padding is other words."""
    tokens, mask, segments, places = MAKER["bert_batch"]()
    fields = {
        "tokens": np.where(mask, tokens, 30),
        "tokens_mask": mask,
        "segments": segments,
        "places": places,
    }
    return [fields[name] for name in model.inputs], mask


def outputs(model, variables):
    """Of a BERT: what it returns, and its last hidden states without padding."""
    given, mask = batch(model)
    apply = functools.partial(model.apply, train=False, capture_intermediates=True)
    found, state = jax.jit(apply)(variables, *given)
    return found, state["intermediates"]["block1"]["__call__"][0][mask]


def test_bert_makes_both_heads_of_transformers():
    model, want = bert(), golden()
    variables = interop.from_transformers(state_dict("bert_pretraining"), model)
    found, hidden = outputs(model, variables)
    mask = batch(model)[1]
    close(hidden, want["bert_pretraining/hidden"][mask])
    close(found["masked"], want["bert_pretraining/masked"])
    # its classes are "follows" and "does not", ours are the other way round
    close(found["is_next"], want["bert_pretraining/is_next"][:, ::-1])


def test_bert_classifies_as_transformers():
    model = bert(num_classes=5)
    variables = interop.from_transformers(state_dict("bert_classes"), model)
    close(outputs(model, variables)[0], golden()["bert_classes/logits"])


def test_bert_without_heads_keeps_those_of_the_model():
    model = bert(num_classes=4, max_length=10)
    given, mask = batch(model)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    draw = np.random.default_rng(0).normal
    initial = jax.tree.map(
        lambda a: np.float32(draw(size=a.shape)), jax.eval_shape(init, *given)
    )
    weights = state_dict("bert")  # for 11 places, of which the first 10 are taken
    variables = interop.from_transformers(weights, model, initial)
    logits, hidden = outputs(model, variables)
    close(hidden, golden()["bert/hidden"][mask])
    kept = initial["params"]["classifier"]
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["classifier"], kept)
    pooled = golden()["bert/pooled"]
    close(logits, pooled @ kept["kernel"] + kept["bias"][None])
    with pytest.raises(settings.Invalid, match=r"lacks classifier.bias, classifier.w"):
        interop.from_transformers(weights, model)


def test_bert_has_old_names_and_heads_to_leave_out():
    weights = state_dict("bert_pretraining")
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): a
        for name, a in weights.items()
    }
    old["cls.predictions.decoder.weight"] = np.zeros((31, 12))
    old["bert.embeddings.position_ids"] = np.arange(11)[None]
    found = interop.from_transformers(old, bert())
    want = interop.from_transformers(weights, bert())
    jax.tree.map(np.testing.assert_array_equal, found, want)
    found = interop.from_transformers(old, bert(heads=("masked",)))["params"]
    assert found.keys() == want["params"].keys() - {"pooler", "is_next"}


def test_fine_tuning_says_what_is_new_and_what_is_left_out():
    model = bert(num_classes=3)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, *batch(model)[0])
    assert interop.fit(state_dict("bert_pretraining"), model, shapes).note() == (
        "the layer classifier is new: there is no classifier.bias; left out:"
        " cls.predictions.transform.dense, cls.predictions.transform.LayerNorm,"
        " cls.predictions.bias, cls.seq_relationship"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_length": 12}, r"position_embeddings.weight has shape \(11, 12\).*12\)$"),
        ({"segments": 0}, r"has unknown bert.embeddings.token_type_embeddings.weight$"),
        ({"position": "sinusoidal"}, r"has unknown bert.embeddings.position_emb\S*$"),
        ({"pool": "mean", "depth": 1}, r"has unknown bert.encoder.layer.1.attention.o"),
    ],
)
def test_a_bert_that_differs_is_one_sentence(changes, says):
    with pytest.raises(settings.Invalid, match=says):
        interop.from_transformers(state_dict("bert_pretraining"), bert(**changes))


def test_marian_makes_the_logits_of_transformers():
    model, weights = marian(), state_dict("marian")
    variables = interop.from_transformers(weights, model)
    source, mask = MAKER["words"](0, MAKER["LENGTHS"], 29)
    target, _ = MAKER["words"](1, MAKER["TARGETS"], 29)

    @jax.jit
    def run(variables):
        bound = model.bind(variables)
        memory = bound.encode(source, mask)
        return memory.tokens, bound.decode(target, memory)

    memory, logits = run(variables)
    close(memory[mask], golden()["marian/memory"][mask])
    close(logits, golden()["marian/logits"])
    assert np.std(logits, axis=(0, 1)).max() > 0.1  # the words tell


def test_what_is_tied_or_follows_from_the_sizes_is_left_out():
    weights = state_dict("marian")
    more = {
        "lm_head.weight": weights["model.shared.weight"],
        "model.encoder.embed_tokens.weight": weights["model.shared.weight"],
        "model.decoder.embed_positions.weight": np.zeros((16, 12)),
    }
    found = interop.from_transformers({**weights, **more}, marian())
    want = interop.from_transformers(weights, marian())
    jax.tree.map(np.testing.assert_array_equal, found, want)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bias": False}, r"has unknown \S*encoder_attn.k_proj.bias, .* and 19 more$"),
        ({"output_bias": False}, r"has unknown final_logits_bias$"),
        ({"depth": 3}, r"lacks model.decoder.layers.2.encoder_attn.k_proj.bias, "),
        ({"norm_first": True}, r"lacks decoder_norm.bias"),
        ({"vocab_size": 30}, r"shared.weight has shape \(29, 12\).*\(30, 12\)$"),
        ({"mlp_dim": 21}, r"fc1.bias has shape \(20,\).*\(21,\)$"),
        ({"position": "learned", "max_length": 9}, "lacks source_position.position"),
    ],
)
def test_a_model_that_differs_is_one_sentence(changes, says):
    with pytest.raises(settings.Invalid, match=says):
        interop.from_transformers(state_dict("marian"), marian(**changes))


def test_a_model_without_rules_is_refused():
    vit = models.create("vit", size="tiny", num_classes=3)
    with pytest.raises(settings.Invalid, match=r"ViT has no .* of transformers; "):
        interop.from_transformers({}, vit)

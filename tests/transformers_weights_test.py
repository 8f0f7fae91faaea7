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

FOLDER = pathlib.Path(__file__).parent / "golden"
MAKER = runpy.run_path(str(FOLDER / "make_transformers.py"))
SIZES = {"width": 12, "depth": 2, "num_heads": 3, "mlp_dim": 20}
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

"""DETR: exact counts of the paper's networks, padding, positions and slots."""

import functools
import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models, settings

FROZEN = ("backbone/stem_conv/", "backbone/stage1/")
SMALL = {
    "num_classes": 5,
    "backbone": {"depth": 8, "layout": "cifar", "stem_stride": 2, "width": 4},
    "frozen_norm": False,
    "width": 12,
    "num_heads": 3,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "mlp_dim": 14,
    "num_queries": 4,
}


@functools.cache
def sample():
    """Two images that are not square, the second padded at both sides."""
    rng = np.random.default_rng(0)
    mask = np.ones((2, 40, 56), bool)
    mask[1, 27:] = mask[1, :, 35:] = False
    return rng.normal(size=(2, 40, 56, 3)).astype(np.float32), mask


def small(**changes):
    return models.create("detr", **{**SMALL, **changes})


def drawn(model, seed=1):
    """Variables of about the size of trained ones, each drawn from its path."""
    inputs = sample()[: len(model.inputs)]
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)

    def leaf(path, array):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rng = np.random.default_rng([seed, *name.encode()])
        if array.ndim == 1 and name.endswith(("scale", "var")):
            return rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        width = np.prod(array.shape[:-1]) ** -0.5 if array.ndim > 1 else 0.3
        return (1.5 * width * rng.normal(size=array.shape)).astype(np.float32)

    return jax.tree.map_with_path(leaf, shapes)


@functools.cache
def compiled(model):
    return jax.jit(functools.partial(model.apply, train=False))


def outputs(model, variables, *inputs):
    return compiled(model)(variables, *(inputs or sample()[: len(model.inputs)]))


def close(found, want):
    assert found.keys() == want.keys() == {"logits", "boxes"}
    for name, array in found.items():
        np.testing.assert_allclose(array, want[name], rtol=1e-5, atol=2e-5)


def differ(found, want):
    for name, array in found.items():
        assert np.abs(array - want[name]).max() > 1e-3, name


def shapes(model, height=64, width=96):
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    return flax.traverse_util.flatten_dict(variables["params"], sep="/")


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, 41_302_368),
        ({"dilated": True, "masked": False}, 41_302_368),
        ({"encoder_depth": 0}, 33_411_936),
        ({"encoder_depth": 3}, 37_357_152),
        ({"encoder_depth": 12}, 49_192_800),
        ({"backbone": {"depth": 101}}, 60_242_272),
        ({"mlp_dim": 0}, 28_691_808),
        # 50 rows and 50 columns of 128 numbers
        ({"position": "learned"}, 41_302_368 + 12_800),
        ({"position": "none", "position_at": "input"}, 41_302_368),
    ],
)
def test_parameters_are_those_of_the_paper(settings, trained):
    params = shapes(models.create("detr", num_classes=91, **settings))
    count = lambda keep: sum(
        math.prod(array.shape) for name, array in params.items() if keep(name)
    )
    assert count(lambda name: name.startswith(FROZEN)) == 222_400
    assert count(lambda name: not name.startswith(FROZEN)) == trained


def constant(variables, of_row, of_column):
    """The same variables, with the same vector in each row and in each column."""
    ones = np.ones((50, 1), np.float32)
    tables = {"rows": ones * of_row[None], "columns": ones * of_column[None]}
    return {**variables, "params": {**variables["params"], "position": tables}}


def shifted(variables, by):
    """The same variables without positions, every place of the map moved by this."""
    params = {k: v for k, v in variables["params"].items() if k != "position"}
    project = params["project"]
    params["project"] = {**project, "bias": project["bias"] + by}
    return {**variables, "params": params}


def test_vectors_at_the_input_are_part_of_the_tokens_and_at_attention_of_keys_alone():
    """Where all places have one vector, it does what can be said without it."""
    one, two = np.random.default_rng(2).normal(size=(2, 6)).astype(np.float32)
    both = np.concatenate([two, one])  # columns come first
    learned = {"position": "learned", "encoder_position": "none"}
    at_input = small(**learned, encoder_depth=0, position_at="input")
    variables = constant(drawn(at_input), one, two)
    plain = small(position="none", encoder_depth=0, position_at="input")
    close(outputs(at_input, variables), outputs(plain, shifted(variables, both)))
    # a softmax does not change where all keys are moved by the same vector
    at_attention = small(**learned, encoder_depth=0)
    plain = small(position="none", encoder_depth=0)
    found = outputs(at_attention, variables)
    close(found, outputs(plain, shifted(variables, 0)))
    differ(outputs(at_attention, drawn(at_input)), found)
    # and the encoder has its own, at its input
    in_encoder = small(
        position="none", encoder_position="learned", encoder_position_at="input"
    )
    variables = constant(drawn(in_encoder), one, two)
    plain = small(position="none")
    close(outputs(in_encoder, variables), outputs(plain, shifted(variables, both)))
    assert "position" not in drawn(plain)["params"]


def test_object_queries_are_tokens_at_the_input_and_places_at_attention():
    """Without attention a query is what it began as: itself, or zeros."""
    alone = {"decoder.self": "none", "decoder.cross": "none"}
    model = small(slots=alone, position_at="input", encoder_depth=0, decoder_depth=1)
    variables = drawn(model)
    params = variables["params"]

    def norm(x, layer):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
        return x * layer["scale"] + layer["bias"]

    def dense(x, layer):
        return x @ np.float64(layer["kernel"]) + layer["bias"]

    def want(x):
        of_layer = params["decoder0"]
        hidden = np.maximum(dense(x, of_layer["mlp_in"]), 0)
        x = norm(x + dense(hidden, of_layer["mlp_out"]), of_layer["norm3"])
        x = norm(x, params["decoder_norm"])
        logits = dense(x, params["classifier"])
        for name in ("box1", "box2"):
            x = np.maximum(dense(x, params[name]), 0)
        boxes = 1 / (1 + np.exp(-dense(x, params["box3"])))
        shape = (2, 1, *x.shape[:-1])
        whole = lambda a: np.broadcast_to(a, (*shape, a.shape[-1]))
        return {"logits": whole(logits), "boxes": whole(boxes)}

    queries = np.float64(params["queries"])
    close(outputs(model, variables), want(queries))
    model = small(slots=alone, encoder_depth=0, decoder_depth=1)
    close(outputs(model, variables), want(np.zeros_like(queries)))


def test_layers_share_their_heads_and_the_last_is_the_prediction():
    model, variables = small(), drawn(small())
    found = outputs(model, variables)
    assert found["logits"].shape == (2, 2, 4, 6)
    assert found["boxes"].shape == (2, 2, 4, 4)
    last = outputs(small(auxiliary=False), variables)
    close(last, {name: array[:, 1:] for name, array in found.items()})
    first = {k: v for k, v in variables["params"].items() if k != "decoder1"}
    one = outputs(small(decoder_depth=1), {**variables, "params": first})
    close(one, {name: array[:, :1] for name, array in found.items()})


def test_without_padding_a_mask_changes_nothing_and_padding_is_not_read():
    model, (images, mask) = small(masked=True), sample()
    variables = drawn(model)
    plain = outputs(small(), variables, images)
    run = functools.partial(outputs, model, variables)
    close(run(images, np.ones_like(mask)), plain)
    found = run(images, mask)
    close(run(np.where(mask[..., None], images, np.nan), mask), found)
    close({k: v[:1] for k, v in found.items()}, {k: v[:1] for k, v in plain.items()})
    differ({k: v[1:] for k, v in found.items()}, {k: v[1:] for k, v in plain.items()})
    nothing = run(images, np.zeros_like(mask))
    assert all(np.all(np.isfinite(array)) for array in nothing.values())


def test_learned_positions_end_at_fifty():
    model, images = small(position="learned"), np.zeros((1, 8, 408, 3), np.float32)
    with pytest.raises(settings.Invalid, match="maps up to 50x50, got 1x51; sine"):
        jax.eval_shape(
            functools.partial(model.apply, train=False), drawn(model), images
        )


def test_attention_in_slots_of_the_backbone_and_of_both_halves():
    slots = {
        "backbone/block": {"residual": "squeeze_excite"},
        "backbone/stage3/block": {"residual": "none"},
        "encoder0/encoder": {"mixer": "linear"},
        "decoder0/decoder": {"cross": "talking_heads"},
    }
    params = drawn(small(slots=slots))["params"]
    has = lambda *path: "residual" in functools.reduce(dict.get, path, params)
    assert has("backbone", "stage1", "block0")
    assert not has("backbone", "stage3", "block0")
    assert params["decoder0"]["cross"].keys() > params["decoder1"]["cross"].keys()
    wide = drawn(small(slots={"block": {"residual": "squeeze_excite"}}))["params"]
    assert "residual" in wide["backbone"]["stage3"]["block0"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"slots": {"encoder0/block.residual": "cbam"}}, "only backbone has 'block.r"),
        ({"slots": {"backbone/decoder.self": "linear"}}, "only decoder has 'decoder.s"),
        ({"slots": {"decoder.cross": "cbam"}}, r"needs a grid, .*valid:.* multi_head,"),
        ({"slots": {"decoder.self": "window"}}, "needs a grid, and object queries"),
        ({"slots": {"decoder.cross": "cross_covariance"}}, "cannot attend to other"),
        ({"slots": {"encoder.mixer": "cbam"}}, "takes no positions for queries and"),
        (
            {"slots": {"encoder.mixer": "cbam"}, "masked": True},
            "encoder.mixer': cbam cannot leave out padding",
        ),
        (
            {"slots": {"backbone/stage4/block.residual": "cbam"}},
            "scope .*'stage4'; did",
        ),
        ({"backbone": {"slots": {}}}, 'it is in slots, as "backbone/block.residual"'),
        ({"backbone": {"num_classes": 3}}, "no 'num_classes': it is a setting of DETR"),
        ({"backbone": {"dept": 50}}, "setting of backbone 'resnet' 'dept'; did you"),
        ({"backbone": {"name": "vit"}}, "the backbone of DETR is a resnet, got 'vit'"),
        ({"backbone": {"depth": 49}}, "unknown depth of an ImageNet ResNet 49"),
        ({"width": 10, "num_heads": 2}, "sine positions need a width that 4 divides"),
        ({"position": "sin"}, "must be one of 'none', 'sine', 'learned', got 'sin'"),
        ({"dropout": 1.0}, r"dropout of DETR must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_cannot_be_is_one_sentence(changes, says):
    with pytest.raises(settings.Invalid, match=says):
        small(**changes)


def test_an_encoder_without_positions_at_attention_may_have_maps():
    model = small(slots={"encoder.mixer": "squeeze_excite"}, encoder_position="none")
    assert "mixer" in drawn(model)["params"]["encoder0"]

"""DETR with weights of transformers and of its authors against transformers' outputs.

The goldens are of its own code: `tests/golden/make_detr.py`.
"""

import functools
import pathlib
import re
import runpy

import jax
import numpy as np
import pytest

from attn import interop, models, settings

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
MAKER = runpy.run_path(str(FOLDER / "make_detr.py"))
SETTINGS = {
    "num_classes": 4,
    "masked": True,
    "backbone": {"depth": 14, "widths": (8, 4, 6, 8, 10)},
    "width": 16,
    "num_heads": 2,
    "encoder_depth": 2,
    "decoder_depth": 3,
    "mlp_dim": 20,
    "num_queries": 5,
}


@functools.cache
def golden():
    with np.load(FOLDER / "detr.npz") as file:
        return dict(file)


@functools.cache
def weights(case):
    """The state dict of the golden: names and shapes are stored, values are drawn."""
    names, shapes = golden()[f"{case}/names"], golden()[f"{case}/shapes"]
    sizes = [tuple(map(int, shape.split("x"))) for shape in shapes]
    draw = MAKER["draw"]
    return {str(n): draw(str(n), s) for n, s in zip(names, sizes, strict=True)}


def model_of(case, **changes):
    return models.create("detr", position=case, **{**SETTINGS, **changes})


@pytest.mark.parametrize("case", list(MAKER["CASES"]))
def test_logits_and_boxes_are_those_of_transformers(case):
    model = model_of(case)
    variables = interop.from_transformers(weights(case), model)
    images, mask = MAKER["batch"]()
    junk = np.where(mask[..., None], images, 100)  # padding is not read
    apply = jax.jit(functools.partial(model.apply, train=False))
    found = apply(variables, junk.astype(np.float32), mask)
    for name in ("logits", "boxes"):
        want = golden()[f"{case}/{name}"]
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=2e-5)


def renamed(state, rules):
    """A state dict under other names."""
    found = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    return found


up = lambda m: f"layer{int(m[1]) + 1}.{m[2]}."
TIMM = (
    (r"embedder\.embedder\.convolution", "conv1"),
    (r"embedder\.embedder\.normalization", "bn1"),
    (r"encoder\.stages\.(\d)\.layers\.(\d)\.", up),
    (r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}"),
    (r"layer\.(\d)\.normalization", lambda m: f"bn{int(m[1]) + 1}"),
    (r"shortcut\.convolution", "downsample.0"),
    (r"shortcut\.normalization", "downsample.1"),
)
FOUR = (
    (r"^model\.backbone\.model", "model.backbone.conv_encoder.model"),
    (r"^model\.position_embedding", "model.backbone.position_embedding"),
    (r"o_proj", "out_proj"),
    (r"\.mlp\.fc", ".fc"),
)
AUTHORS = (
    (r"^model\.backbone\.model", "backbone.0.body"),
    (r"^model\.position_embedding\.row_embeddings", "backbone.1.row_embed"),
    (r"^model\.position_embedding\.column_embeddings", "backbone.1.col_embed"),
    (r"^model\.input_projection", "input_proj"),
    (r"^model\.query_position_embeddings", "query_embed"),
    (r"^class_labels_classifier", "class_embed"),
    (r"^bbox_predictor", "bbox_embed"),
    (r"^model\.decoder\.layernorm", "transformer.decoder.norm"),
    (r"^model\.(en|de)coder\.", r"transformer.\1coder."),
    (r"encoder_attn_layer_norm", "norm2"),
    (r"self_attn_layer_norm", "norm1"),
    (r"(transformer\.encoder.*)final_layer_norm", r"\1norm2"),
    (r"final_layer_norm", "norm3"),
    (r"encoder_attn\.", "multihead_attn."),
    (r"o_proj", "out_proj"),
    (r"mlp\.fc", "linear"),
)


def fused(state):
    """Queries, keys and values as one array, as PyTorch's own attention has them."""
    found = {}
    for name, value in state.items():
        if not re.search(r"[qkv]_proj", name):
            found[name] = value
        elif "q_proj" in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            one = re.sub(r"q_proj\.", "in_proj_", name)
            found[one] = np.concatenate(parts)
    return found


def test_all_names_of_a_detr_are_known():
    state, model = weights("learned"), model_of("learned")
    want = interop.from_transformers(state, model)
    timm = renamed(state, TIMM)
    authors = fused(renamed(timm, AUTHORS))
    assert "backbone.0.body.layer1.0.downsample.1.running_var" in authors
    assert "transformer.decoder.layers.2.multihead_attn.in_proj_bias" in authors
    assert "transformer.encoder.layers.1.norm2.weight" in authors
    four = renamed(timm, FOUR)
    assert "model.backbone.conv_encoder.model.bn1.weight" in four
    assert "model.encoder.layers.0.fc1.weight" in four
    counted = {**timm, "model.backbone.model.bn1.num_batches_tracked": np.array(3)}
    for other in (timm, four, authors, counted, renamed(state, FOUR)):
        found = interop.from_transformers(other, model)
        jax.tree.map(np.testing.assert_array_equal, found, want)


def shapes(model):
    images, mask = (np.zeros((1, 64, 96, 3), np.float32), np.ones((1, 64, 96), bool))
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, images, mask)


def test_other_classes_have_a_new_head_and_nothing_else_is_new():
    model = model_of("sine", num_classes=7)
    fit = interop.fit(weights("sine"), model, shapes(model))
    assert fit.note() == (
        "the layer classifier is new: class_labels_classifier.bias has shape (5,), but"
        " classifier/bias of this model, of shape (8,), needs (8,)"
    )
    assert all(path[1] == "classifier" for path in missing(model, fit))
    small = model_of("sine", encoder_depth=1)
    with pytest.raises(settings.Invalid, match=r"has unknown model\S*layers.1"):
        interop.fit(weights("sine"), small, shapes(small))


def missing(model, fit):
    flat = jax.tree.leaves_with_path(shapes(model))
    paths = {tuple(key.key for key in path) for path, _ in flat}
    assert len(paths) > 100
    return paths - fit.variables().keys()


def test_a_training_may_start_with_a_resnet_alone():
    model, prefix = model_of("sine"), "model.backbone.model."
    state = renamed(weights("sine"), TIMM)
    resnet = {n.removeprefix(prefix): a for n, a in state.items() if prefix in n}
    resnet |= {"fc.weight": np.zeros((9, 40)), "bn1.num_batches_tracked": np.array(1)}
    fit = interop.fit(resnet, model, shapes(model))
    assert fit.note() == (
        "new are the layers box1, box2, box3, classifier, decoder0 and 7 more;"
        " left out: fc"
    )
    assert all(path[1] != "backbone" for path in missing(model, fit))
    del resnet["layer4.0.conv3.weight"]
    with pytest.raises(settings.Invalid, match=r"it lacks layer4.0.conv3.weight$"):
        interop.fit(resnet, model, shapes(model))

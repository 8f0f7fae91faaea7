"""Models with weights of timm against the logits of timm, and what is refused.

The goldens are of timm's own code: `tests/golden/make_timm.py`. Since every variable
of a model takes part in its logits, this is where the forward passes of `swin`, `deit`,
`cait`, `xcit` and `vgg` are checked, too.
"""

import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from attn import interop, models

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
MAKER = runpy.run_path(str(FOLDER / "make_timm.py"))
TOKENS = {"width": 12, "depth": 2, "num_heads": 3, "patch_size": 4}
SWIN = {"patch_size": 2, "width": 8, "num_heads": (2, 4)}
XCIT = {"width": 16, "depth": 2, "num_heads": 2, "layer_scale": 0.1}
BIASED = {"mixer": {"name": "multi_head", "qkv_bias": False}}
RESNET = {"widths": (64, 8, 12, 16, 24), "depth": 14}
DEEP = {"widths": (16, 8, 12, 16, 24), "shortcut": "average"}
VGG = {"depth": 11, "widths": (2, 3, 4, 6, 5), "dense": (12, 4096)}
residual = lambda name, **more: {"slots": {"block.residual": {"name": name, **more}}}
CASES = {
    "vit": ("vit", TOKENS),
    "vit_mean": ("vit", {**TOKENS, "pool": "mean", "slots": BIASED}),
    "deit": ("deit", TOKENS),
    "swin": ("swin", {**SWIN, "depths": (2, 3), "window": 3}),
    "swin_clamped": ("swin", {**SWIN, "depths": (2, 2), "window": 6}),
    "cait": ("cait", TOKENS),
    "xcit": ("xcit", {**XCIT, "patch_size": 8, "size": "tiny_12", "class_layers": 3}),
    "xcit_nano": ("xcit", {**XCIT, "size": "nano_12"}),
    "se_resnet": (
        "resnet",
        {**RESNET, "cardinality": 2, "group_width": 48}
        | residual("squeeze_excite", divisor=8),
    ),
    "eca_resnet": (
        "resnet",
        {**DEEP, "depth": 10, "stem": "deep"} | residual("efficient_channel"),
    ),
    "gca_resnet": (
        "resnet",
        {**RESNET, "depth": 14} | residual("global_context", reduction=8, epsilon=1e-6),
    ),
    "gc_resnet": (
        "resnet",
        {"widths": (64, 8, 16, 24, 32), "depth": 10}
        | residual("global_context", reduction=8, epsilon=1e-6, fuse="scale"),
    ),
    "dilated_bottleneck": ("resnet", {**RESNET, "depth": 26, "dilated": True}),
    "dilated_basic": ("resnet", {**RESNET, "depth": 18, "dilated": True}),
    "cbam_resnet": (
        "resnet",
        {**DEEP, "depth": 14, "stem": "tiered"} | residual("cbam", variant="timm"),
    ),
    "vgg": ("vgg", VGG),
    "vgg_bn": ("vgg", {**VGG, "norm": True}),
}


@functools.cache
def golden():
    with np.load(FOLDER / "timm.npz") as file:
        return dict(file)


def state_dict(case):
    """The weights of the golden: names and shapes are stored, values are drawn."""
    names, shapes = golden()[f"{case}/names"], golden()[f"{case}/shapes"]
    sizes = [tuple(map(int, shape.split("x"))) if shape else () for shape in shapes]
    draw = MAKER["draw"]
    return {str(n): draw(str(n), s) for n, s in zip(names, sizes, strict=True)}


def model_of(case, **more):
    kind, settings = CASES[case]
    return models.create(kind, num_classes=5, **{**settings, **more})


def load(case, weights=None, **more):
    shape = (*MAKER["CASES"][case][2], 3)
    weights = state_dict(case) if weights is None else weights
    return interop.from_timm(weights, model_of(case, **more), shape)


def logits(case, variables):
    images = MAKER["images"](case).astype(np.float32)
    apply = functools.partial(model_of(case).apply, train=False)
    return jax.jit(apply)(variables, images)


def test_there_is_a_golden_for_every_model_with_rules():
    assert set(CASES) == set(MAKER["CASES"])
    kinds = {kind for kind, _ in CASES.values()}
    assert kinds == {name for name in models.names() if models.find(name).timm}


@pytest.mark.parametrize("case", list(CASES))
def test_makes_the_logits_of_timm(case):
    want = golden()[f"{case}/logits"]
    assert np.abs(want - want.mean(0)).max() > 0.1  # the images tell
    np.testing.assert_allclose(
        logits(case, load(case)), want, rtol=1e-5, atol=2e-5 * np.abs(want).max()
    )


def test_every_array_matters_to_the_variables():
    """Each source is used, in its own place: another value makes another variable."""
    weights = state_dict("swin")
    plain = load("swin", weights)
    for name in list(weights)[::7]:
        moved = load("swin", {**weights, name: weights[name] + 1})
        differs = jax.tree.map(lambda a, b: not np.array_equal(a, b), plain, moved)
        # A fused layer is three variables.
        assert sum(jax.tree.leaves(differs)) == (3 if ".qkv." in name else 1)


def test_knows_the_names_of_swins_authors_and_what_is_no_weight():
    weights = {}
    for name, value in state_dict("swin").items():
        name = name.replace("head.fc.", "head.")
        weights[name.replace("layers.1.downsample", "layers.0.downsample")] = value
    weights["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((9, 9))
    weights["layers.0.blocks.1.attn_mask"] = np.zeros((4, 9, 9))
    same = jax.tree.map(np.array_equal, load("swin", weights), load("swin"))
    assert all(jax.tree.leaves(same))


def test_knows_the_names_of_torchvisions_vgg():
    linear = {"pre_logits.fc1": "0", "pre_logits.fc2": "3", "head.fc": "6"}
    weights = {}
    for name, value in state_dict("vgg").items():
        layer, leaf = name.rsplit(".", 1)
        if layer in linear:
            name = f"classifier.{linear[layer]}.{leaf}"
            value = value.reshape(len(value), -1) if leaf == "weight" else value
        weights[name] = value
    assert weights["classifier.0.weight"].shape == (12, 5 * 7 * 7)
    same = jax.tree.map(np.array_equal, load("vgg", weights), load("vgg"))
    assert all(jax.tree.leaves(same))


def test_keeps_parameters_in_the_type_of_the_model():
    leaves = jax.tree.leaves(load("vit"))  # the arrays are float64
    assert {leaf.dtype.name for leaf in leaves} == {"float32"}
    halves = jax.tree.leaves(load("vit", param_dtype="bfloat16"))
    assert {leaf.dtype.name for leaf in halves} == {"bfloat16"}


def without(case, *names):
    return {k: v for k, v in state_dict(case).items() if k not in names}


def test_missing_and_unknown_names_are_refused():
    weights = without("vit", "blocks.1.norm2.bias", "cls_token")
    with pytest.raises(ValueError, match=r"lacks blocks.1.norm2.bias, cls_token$"):
        load("vit", weights)
    weights = {**state_dict("vit"), "blocks.0.ls1.gamma": np.zeros(12)}
    with pytest.raises(ValueError, match=r"it has unknown blocks.0.ls1.gamma$"):
        load("vit", weights)
    with pytest.raises(ValueError, match=r"lacks .*dist_token.*; it has unknown ") as e:
        load("deit", {**state_dict("vit"), "fc_norm.bias": np.zeros(12)})
    assert "\n" not in str(e.value)
    # A deeper model, and slots that PyTorch's has not.
    with pytest.raises(ValueError, match=r"has unknown blocks.1.attn.proj.bias, "):
        load("vit", depth=1)
    with pytest.raises(ValueError, match=r"lacks blocks.0.post.*squeeze"):
        load("vit", slots={"block0/block.post": "squeeze_excite"})


@pytest.mark.parametrize(
    ("case", "name", "shape", "message"),
    [
        ("vit", "blocks.0.mlp.fc1.weight", (48, 13), r"\(48, 13\).*needs \(48, 12\)"),
        ("vit", "blocks.0.mlp.fc1.weight", (12, 48), r"mlp_in/kernel.*needs \(48, 12"),
        ("vit", "blocks.1.attn.qkv.weight", (12, 12), r"\(12, 3, 4\), needs \(36, 12"),
        ("vit", "blocks.1.attn.qkv.bias", (12,), r"\(12,\).*needs \(36,\)"),
        ("vit", "pos_embed", (1, 5, 12), r"\(1, 5, 12\).*\(1, 7, 12\)"),
        ("vit", "patch_embed.proj.weight", (12, 4, 4, 3), r"needs \(12, 3, 4, 4\)"),
        ("xcit", "blocks.0.attn.temperature", (1, 1, 2), r"needs \(2, 1, 1\)"),
        (
            "swin",
            "layers.0.blocks.1.attn.relative_position_bias_table",
            (9, 2),
            r"\(9, 2\), but stage1/block1/mixer/bias_table.*needs \(25, 2\)",
        ),
    ],
)
def test_arrays_of_another_shape_are_refused(case, name, shape, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        load(case, {**state_dict(case), name: np.zeros(shape)})


def test_images_of_another_size_and_other_models_are_refused():
    with pytest.raises(ValueError, match=r"pos_embed has shape \(1, 7, 12\).*5, 12"):
        interop.from_timm(state_dict("vit"), model_of("vit"), (8, 8, 3))
    mlp = models.create("mlp", widths=(3,), num_classes=5)
    with pytest.raises(
        ValueError, match=r"MLP has no rules for weights of timm; cait, deit, resnet"
    ):
        interop.from_timm({}, mlp)

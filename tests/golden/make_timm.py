"""Makes timm.npz: logits of tiny networks of timm, computed by torch in float64.

    python tests/golden/make_timm.py

Needs torch and timm. Weights and images are not stored: `draw` makes each array from
its name, here and in the tests; names and shapes of the state dicts are stored.
"""

import pathlib
import re
import zlib

import numpy as np

SWIN = {"patch_size": 2, "embed_dim": 8, "num_heads": (2, 4), "num_classes": 5}
TOKENS = {"embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}
XCIT = {**TOKENS, "embed_dim": 16, "num_heads": 2, "patch_size": 8}
RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 24), "num_classes": 5}
DEEP = {"stem_width": 8, "avg_down": True}
# Column A, narrow; the second of the linear layers has 4,096 units whatever is set.
VGG = {"cfg": [2, "M", 3, "M", 4, 4, "M", 6, 6, "M", 5, 5, "M"], "mlp_ratio": 0.003}
VGG["num_classes"] = 5
# Class in timm.models, its settings, and the image, (height, width).
CASES = {
    "vit": ("VisionTransformer", {**TOKENS, "patch_size": 4}, (8, 12)),
    "vit_mean": (
        "VisionTransformer",
        {
            **TOKENS,
            "patch_size": 4,
            "class_token": False,
            "global_pool": "avg",
            "fc_norm": False,
            "qkv_bias": False,
        },
        (8, 12),
    ),
    "deit": ("VisionTransformerDistilled", {**TOKENS, "patch_size": 4}, (8, 12)),
    # Windows of 3x3 on grids of 12x18 and 6x9, which they divide.
    "swin": ("SwinTransformer", {**SWIN, "depths": (2, 3), "window_size": 3}, (24, 36)),
    # Windows of 4x6 and then of 2x3: as large as the grid, so that nothing is shifted.
    "swin_clamped": (
        "SwinTransformer",
        {**SWIN, "depths": (2, 2), "window_size": 6},
        (8, 12),
    ),
    "cait": ("Cait", {**TOKENS, "patch_size": 4, "init_values": 0.3}, (8, 12)),
    # What a class layer does to the patches tells in the third.
    "xcit": (
        "Xcit",
        {**XCIT, "eta": 0.3, "tokens_norm": True, "cls_attn_layers": 3},
        (16, 24),
    ),
    "xcit_nano": (
        "Xcit",
        {**XCIT, "patch_size": 16, "eta": 0.3, "tokens_norm": False},
        (32, 48),
    ),
    "se_resnet": (
        "ResNet",
        {**RESNET, "block": "Bottleneck", "cardinality": 2, "base_width": 48}
        | {"block_args": {"attn_layer": "se"}},
        (37, 50),
    ),
    # Stems of three convolutions, and average pooling in the shortcuts.
    "eca_resnet": (
        "ResNet",
        {**RESNET, "block": "BasicBlock", **DEEP, "stem_type": "deep"}
        | {"block_args": {"attn_layer": "eca"}},
        (37, 50),
    ),
    # One adds, the other scales.
    "gca_resnet": (
        "ResNet",
        {**RESNET, "block": "Bottleneck", "block_args": {"attn_layer": "gca"}},
        (37, 50),
    ),
    "gc_resnet": (
        "ResNet",
        {**RESNET, "block": "BasicBlock", "channels": (8, 16, 24, 32)}
        | {"block_args": {"attn_layer": "gc"}},
        (37, 50),
    ),
    # The last stage dilated in place of its stride.
    "dilated_bottleneck": (
        "ResNet",
        {**RESNET, "layers": (2, 2, 2, 2), "block": "Bottleneck", "output_stride": 16},
        (50, 91),
    ),
    "dilated_basic": (
        "ResNet",
        {**RESNET, "layers": (2, 2, 2, 2), "block": "BasicBlock", "output_stride": 16},
        (50, 91),
    ),
    "cbam_resnet": (
        "ResNet",
        {**RESNET, "block": "Bottleneck", **DEEP, "stem_type": "deep_tiered"}
        | {"block_args": {"attn_layer": "cbam"}},
        (37, 50),
    ),
    # The last map has 7x8 places, so that the linear layers are read at two.
    "vgg": ("VGG", VGG, (230, 260)),
    "vgg_bn": ("VGG", {**VGG, "norm_layer": "BatchNorm2d"}, (230, 260)),
}


def draw(name, shape):
    """An array for a name, of about the size that a trained network has there."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith(("weight", "running_var")) and len(shape) == 1:  # of a norm
        return rng.uniform(0.5, 1.5, shape)
    if name == "patch_embed.proj.bias":
        return 0.01 * rng.normal(size=shape)
    width = np.prod(shape[1:]) ** -0.5 if len(shape) in (2, 4) else 0.3
    # Of a ResNet or a VGG, which have no norm of tokens.
    if re.match(r"layer\d|conv1\b|features\b", name):
        return 1.5 * width * rng.normal(size=shape)
    return (3 if len(shape) == 4 else 1.2) * width * rng.normal(size=shape)


def images(case):
    """Three of them; Swin's are faint, so that the epsilon of its norms tells."""
    faint = 0.02 if case.startswith("swin") else 1
    return faint * np.random.default_rng(0).normal(size=(3, *CASES[case][2], 3))


def main():
    import timm
    import torch
    from timm.models import (
        cait,
        deit,
        resnet,
        swin_transformer,
        vgg,
        vision_transformer,
        xcit,
    )

    torch.set_default_dtype(torch.float64)
    versions = f"timm {timm.__version__}, torch {torch.__version__}"
    arrays = {"versions": np.array(versions)}
    for case, (kind, settings, size) in CASES.items():
        homes = (vision_transformer, cait, deit, swin_transformer, xcit, resnet, vgg)
        home = next(home for home in homes if hasattr(home, kind))
        if home is resnet:
            settings = {**settings, "block": getattr(resnet, settings["block"])}
        elif home is vgg:
            norm = settings.get("norm_layer")
            settings = {**settings, "norm_layer": norm and getattr(torch.nn, norm)}
        else:
            settings = {**settings, "img_size": size}
        model = getattr(home, kind)(**settings).eval()
        state = {
            name: torch.tensor(draw(name, tuple(value.shape)))
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(state)
        with torch.no_grad():
            x = torch.tensor(images(case)).permute(0, 3, 1, 2)
            arrays[f"{case}/logits"] = model(x).numpy()
        arrays[f"{case}/names"] = np.array(list(state))
        arrays[f"{case}/shapes"] = np.array(
            ["x".join(map(str, value.shape)) for value in state.values()]
        )
    np.savez_compressed(pathlib.Path(__file__).with_name("timm.npz"), **arrays)


if __name__ == "__main__":
    main()

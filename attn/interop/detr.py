"""State dicts of DETR under one set of names, those of transformers 5.

A DETR has other names in the repository of its authors (of facebookresearch/detr), in
files of transformers 4, and where its ResNet is transformers' own and not timm's.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from attn.models.layers.timm import Rules

# Substitutions in names, in this order; names that are new stay as they are.
RULES: Rules = (
    # the repository of the authors
    (r"^backbone\.0\.body\.", "model.backbone.model."),
    (r"^backbone\.1\.row_embed\.", "model.position_embedding.row_embeddings."),
    (r"^backbone\.1\.col_embed\.", "model.position_embedding.column_embeddings."),
    (r"^input_proj\.", "model.input_projection."),
    (r"^query_embed\.", "model.query_position_embeddings."),
    (r"^class_embed\.", "class_labels_classifier."),
    (r"^bbox_embed\.", "bbox_predictor."),
    (r"^transformer\.decoder\.norm\.", "model.decoder.layernorm."),
    (r"^transformer\.", "model."),
    (r"\.multihead_attn\.", ".encoder_attn."),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"^(model\.decoder\..*)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"\.norm[23]\.", ".final_layer_norm."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    # transformers 4
    (r"^model\.backbone\.conv_encoder\.", "model.backbone."),
    (r"^model\.backbone\.position_embedding\.", "model.position_embedding."),
    (r"(\.layers\.\d+)\.fc", r"\1.mlp.fc"),
    (r"\.out_proj\.", ".o_proj."),
    # a ResNet of transformers
    (r"\.embedder\.embedder\.convolution\.", ".conv1."),
    (r"\.embedder\.embedder\.normalization\.", ".bn1."),
    (
        r"\.encoder\.stages\.(\d+)\.layers\.(\d+)\.",
        lambda m: f".layer{int(m[1]) + 1}.{m[2]}.",
    ),
    (r"\.layer\.(\d+)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d+)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)
FUSED = re.compile(r"(.*\.)in_proj_(weight|bias)")


def is_detr(state_dict: Mapping[str, Any]) -> bool:
    """Whether it is of a DETR, under any of its names."""
    queries = ("query_embed.weight", "model.query_position_embeddings.weight")
    return any(name in state_dict for name in queries)


def renamed(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Its arrays with the names of today, queries, keys and values taken apart."""
    arrays = {}
    for name, value in state_dict.items():
        if name.endswith("num_batches_tracked"):
            continue
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        fused = FUSED.fullmatch(name)
        if not fused:
            arrays[name] = value
            continue
        for part, third in zip("qkv", np.split(np.asarray(value), 3), strict=True):
            arrays[f"{fused[1]}{part}_proj.{fused[2]}"] = third
    return arrays

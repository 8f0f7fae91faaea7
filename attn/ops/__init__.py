"""Attention's mathematics as pure functions on arrays, for any JAX library.

Nothing here has parameters or knows Flax. Letters in shapes: B examples, H x W
positions, C channels, N heads, T targets and S sources of D and Dv features.
"""

from attn.ops.additive import additive_logits
from attn.ops.dot_product import (
    attention_weights,
    dot_product_attention,
    masked_softmax,
)
from attn.ops.grid import (
    affine_grid,
    control_grid,
    projective_grid,
    regular_grid,
    thin_plate_grid,
)
from attn.ops.programs import plain
from attn.ops.ring import ring_attention
from attn.ops.sample import bilinear_sample
from attn.ops.sparsemax import entmax15, sparsemax

__all__ = [
    "additive_logits",
    "affine_grid",
    "attention_weights",
    "bilinear_sample",
    "control_grid",
    "dot_product_attention",
    "entmax15",
    "masked_softmax",
    "plain",
    "projective_grid",
    "regular_grid",
    "ring_attention",
    "sparsemax",
    "thin_plate_grid",
]

"""Attention's mathematics as pure functions on arrays, for any JAX library.

Nothing here has parameters or knows Flax. Letters in shapes: B examples, H x W
positions, C channels, N heads, T targets and S sources of D and Dv features.
"""

from attn.ops import masks
from attn.ops.additive import additive_logits
from attn.ops.affine import invert_affine, move_points
from attn.ops.covariance import (
    covariance_pool,
    newton_schulz_sqrt,
    upper_triangle,
)
from attn.ops.dot_product import (
    attention_weights,
    dot_product_attention,
    explain,
    masked_softmax,
)
from attn.ops.doubly_stochastic import doubly_stochastic_penalty
from attn.ops.grid import (
    affine_grid,
    control_grid,
    projective_grid,
    regular_grid,
    thin_plate_grid,
)
from attn.ops.gumbel import draw_one_hot, straight_through_gumbel
from attn.ops.keypoints import (
    correct_keypoints,
    decode_heatmaps,
    gaussian_heatmaps,
    keypoint_similarity,
)
from attn.ops.pose_nms import pose_nms, pose_similarity
from attn.ops.programs import plain
from attn.ops.resize import imresize
from attn.ops.sample import bilinear_sample
from attn.ops.score_function import (
    baseline_loss,
    leave_one_out,
    moving_average,
    score_function_loss,
)
from attn.ops.sequence import sequence_attention
from attn.ops.sparsemax import entmax15, sparsemax

__all__ = [
    "additive_logits",
    "affine_grid",
    "attention_weights",
    "baseline_loss",
    "bilinear_sample",
    "control_grid",
    "correct_keypoints",
    "covariance_pool",
    "decode_heatmaps",
    "dot_product_attention",
    "doubly_stochastic_penalty",
    "draw_one_hot",
    "entmax15",
    "explain",
    "gaussian_heatmaps",
    "imresize",
    "invert_affine",
    "keypoint_similarity",
    "leave_one_out",
    "masked_softmax",
    "masks",
    "move_points",
    "moving_average",
    "newton_schulz_sqrt",
    "plain",
    "pose_nms",
    "pose_similarity",
    "projective_grid",
    "regular_grid",
    "score_function_loss",
    "sequence_attention",
    "sparsemax",
    "straight_through_gumbel",
    "thin_plate_grid",
    "upper_triangle",
]

"""Outlook attention (VOLO): weights of a window, predicted from its centre alone.

Yuan, Hou, Jiang, Feng, Yan, "VOLO: Vision Outlooker for Visual Recognition", 2021,
https://arxiv.org/abs/2106.13112, section 3.1, equations 3 to 5. Released code:
https://github.com/sail-sg/volo.

Letters used in shapes:
    B batch, H x W map, h x w centres, C channels, N heads, D channels of one head, K
    places of a window.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import head_shape
from attn.ops.outlook import outlook_attention, outlook_matrix
from attn.ops.shapes import as_map
from attn.settings import Positive


class Outlook(nn.Module):
    """Mixes the windows of a map: [B, H, W, C] -> W_O fold(A V), [B, H, W, C].

    A = softmax(W_A x / sqrt(D)), K x K weights a head for the window around each
    centre, from the mean of the stride x stride values there; V = W_V x. No query
    meets a key. The softmax is in float32. `card` tells the paper and the count of
    parameters.

    Attributes:
        kernel_size: side of a window, odd; the paper uses 3.
        stride: steps from one centre to the next; the paper uses 2.
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads; the paper uses 32.
        qkv_bias: whether W_V has a bias; the paper's has none.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    kernel_size: Positive = 3
    stride: Positive = 2
    num_heads: Positive | None = None
    head_dim: Positive | None = None
    qkv_bias: bool = False
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    def __post_init__(self):
        if self.kernel_size % 2 == 0:
            raise settings.Invalid(
                f"kernel_size of an outlook must be odd, got {self.kernel_size}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        x = as_map(x, self.dtype)
        kinds = {"dtype": x.dtype, "param_dtype": self.param_dtype}
        heads, dim = head_shape(x.shape[-1], self.num_heads, self.head_dim)
        value = nn.DenseGeneral(
            (heads, dim), use_bias=self.qkv_bias, name="value", **kinds
        )(x)
        places = self.kernel_size**2
        logits = nn.DenseGeneral((heads, places, places), name="attend", **kinds)(
            self._centres(x)
        )
        weights = jax.nn.softmax(logits.astype(jnp.float32) * dim**-0.5, axis=-1)
        grid = x.shape[1:3]
        matrix = lambda: outlook_matrix(weights, grid, stride=self.stride)
        sow(self, "token_matrix", matrix, grid=grid)
        y = outlook_attention(weights, value, stride=self.stride)
        return nn.DenseGeneral(x.shape[-1], axis=(-2, -1), name="out", **kinds)(y)

    def _centres(self, x: jax.Array) -> jax.Array:
        """The mean of what lies around each centre, [B, h, w, C]."""
        pad = [(0, -length % self.stride) for length in x.shape[1:3]]
        window = (self.stride, self.stride)
        mean = nn.avg_pool(
            x.astype(jnp.float32), window, window, pad, count_include_pad=False
        )
        return mean.astype(x.dtype)


def _parameters(module: Outlook, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads, dim = head_shape(channels, module.num_heads, module.head_dim)
    inner, weights = heads * dim, heads * module.kernel_size**4
    value = channels * inner + inner * module.qkv_bias
    return value + (channels + 1) * weights + inner * channels + channels


Outlook.card = Card(
    family="pixel",
    contract="map",
    paper=Paper(
        title="VOLO: Vision Outlooker for Visual Recognition",
        authors="Yuan, Hou, Jiang, Feng, Yan",
        year=2021,
        arxiv="2106.13112",
    ),
    formula="W_O fold(softmax(W_A mean_sxs(x) / sqrt(D)) unfold(W_V x)), k x k windows",
    complexity="2 HW C^2 + HW (N + 1) C k^4 / s^2 + HWC",
    parameters=_parameters,
    maps=("token_matrix",),
    note=(
        "2 C^2 + C + (C + 1) N k^4 parameters. The stride is that of the released code,"
        " which has no dropout here. Kernels start from LeCun's normal instead of a"
        " normal of 0.02. The recorded matrix is that of the whole map; a row of it"
        " sums to the number of windows over a place, less what it reads beyond the"
        " border."
    ),
)

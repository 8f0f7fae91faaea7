"""Non-local block: every position reads all positions of the map.

Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018,
https://arxiv.org/abs/1711.07971, equations 1 to 6. Released code:
https://github.com/facebookresearch/video-nonlocal-net.

Letters used in shapes:
    B batch, H W map, C channels, D channels of the bottleneck, T = H W targets,
    S sources (T, or about a quarter of it after subsampling).
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops import dot_product
from attn.ops.convolution import max_pool
from attn.ops.shapes import as_map
from attn.settings import Positive


def halve(x: jax.Array) -> jax.Array:
    """Max-pools 2x2 with stride 2: [B, H, W, C] -> [B, H // 2, W // 2, C].

    A last odd row or column is left out, but a side of 1 stays.
    """
    height, width = (max(1, side // 2 * 2) for side in x.shape[1:3])
    return max_pool(x[:, :height, :width])


class NonLocal(nn.Module):
    """Adds what each position reads elsewhere: [B, H, W, C] -> x + BN(W_z y).

    y_t = sum_s f(x_t, x_s) g(x_s) / norm, with theta, phi and g linear, and the
    residual inside. At initialisation the block is the identity. `card` tells the
    count of parameters and the variants.

    Attributes:
        pairwise: f. "embedded_gaussian" exp(theta_t . phi_s) and "gaussian"
            exp(x_t . x_s), both divided by their sum over s (a softmax);
            "dot_product" theta_t . phi_s and "concatenation"
            relu(w_f . [theta_t, phi_s]), both divided by S.
        reduction: C / D, by which theta, phi and g are narrower; the paper uses 2.
        subsample: where 2x2 max-pooling makes the sources fewer: "none",
            "projected" after phi and g (the paper's text), or "input" before them
            (the released code).
        scale: whether the logits of the two softmax functions are divided by the
            square root of their width. The paper does not, the released code does.
        norm: "batch" puts a batch norm after W_z whose gamma starts at zero, as the
            paper; "none" starts W_z itself at zero.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
        axis_name: pmap axis over which batch statistics are averaged.
    """

    pairwise: Literal[
        "embedded_gaussian", "gaussian", "dot_product", "concatenation"
    ] = "embedded_gaussian"
    reduction: Positive = 2
    subsample: Literal["none", "projected", "input"] = "none"
    scale: bool = False
    norm: Literal["batch", "none"] = "batch"
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        height, channels = x.shape[1], x.shape[-1]
        x = as_map(x, self.dtype)
        theta, phi, g, grid = self._project(x)
        if self.pairwise == "dot_product":
            y = self._products(theta, phi, g, grid)
        elif self.pairwise == "concatenation":
            y = self._concatenation(theta, phi, g, grid)
        else:
            y = self._softmax(theta, phi, g, grid)
        y = rearrange(y, "b (h w) d -> b h w d", h=height)
        zeros = nn.initializers.zeros_init()
        start = zeros if self.norm == "none" else nn.initializers.lecun_normal()
        y = nn.Dense(channels, kernel_init=start, name="out", **self._kinds(x))(y)
        if self.norm == "batch":
            y = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                scale_init=zeros,
                dtype=jnp.float32,
                param_dtype=self.param_dtype,
                axis_name=self.axis_name,
                name="norm",
            )(y)
        return x + y.astype(x.dtype)

    def _kinds(self, x: jax.Array) -> dict[str, jnp.dtype]:
        return {"dtype": x.dtype, "param_dtype": self.param_dtype}

    def _project(self, x):
        """theta [B, T, D], phi [B, S, D], g [B, S, D], and (rows, columns) of S."""
        inner = max(1, x.shape[-1] // self.reduction)
        kinds = self._kinds(x)
        source = halve(x) if self.subsample == "input" else x
        theta, phi = x, source
        if self.pairwise != "gaussian":
            theta = nn.Dense(inner, name="theta", **kinds)(x)
            phi = nn.Dense(inner, name="phi", **kinds)(source)
        g = nn.Dense(inner, name="g", **kinds)(source)
        if self.subsample == "projected":
            phi, g = halve(phi), halve(g)
        flat = (rearrange(a, "b h w d -> b (h w) d") for a in (theta, phi, g))
        return *flat, phi.shape[1:3]

    def _softmax(self, theta, phi, g, grid):
        scale = theta.shape[-1] ** -0.5 if self.scale else 1.0
        q, k, v = (a[:, :, None] for a in (theta, phi, g))  # one head
        weights = lambda: dot_product.attention_weights(q, k, scale=scale)
        sow(self, "token_matrix", weights, grid=grid)
        return dot_product.dot_product_attention(q, k, v, scale=scale)[:, :, 0]

    def _products(self, theta, phi, g, grid):
        # Without a softmax the product associates: (theta phi^T) g = theta (phi^T g)
        # needs no T x S matrix.
        exact = {"preferred_element_type": jnp.float32}
        matrix = lambda: jnp.einsum("btd,bsd->bts", theta, phi, **exact) / phi.shape[1]
        sow(self, "token_matrix", lambda: matrix()[:, None], grid=grid)
        table = jnp.einsum("bsd,bse->bde", phi, g, **exact) / phi.shape[1]
        return jnp.einsum("btd,bde->bte", theta, table.astype(theta.dtype))

    def _concatenation(self, theta, phi, g, grid):
        # w_f splits into a half for theta and one for phi, so that no tensor of all
        # pairs times 2 D is needed.
        inner = theta.shape[-1]
        start = nn.initializers.normal((2 * inner) ** -0.5)
        w_f = self.param("w_f", start, (2, inner), self.param_dtype)
        exact = {"preferred_element_type": jnp.float32}
        target = jnp.einsum("btd,d->bt", theta, w_f[0].astype(theta.dtype), **exact)
        source = jnp.einsum("bsd,d->bs", phi, w_f[1].astype(phi.dtype), **exact)
        matrix = nn.relu(target[:, :, None] + source[:, None, :]) / phi.shape[1]
        sow(self, "token_matrix", lambda: matrix[:, None], grid=grid)
        return jnp.einsum("bts,bsd->btd", matrix.astype(g.dtype), g)


def _parameters(module: NonLocal, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    inner = max(1, channels // module.reduction)
    projections = 1 if module.pairwise == "gaussian" else 3
    return (
        projections * (channels * inner + inner)
        + inner * channels
        + channels
        + (2 * inner) * (module.pairwise == "concatenation")
        + (2 * channels) * (module.norm == "batch")
    )


NonLocal.card = Card(
    family="non_local",
    contract="map",
    paper=Paper(
        title="Non-local Neural Networks",
        authors="Wang, Girshick, Gupta, He",
        year=2018,
        arxiv="1711.07971",
    ),
    formula="x + BN(W_z softmax(theta(x) phi(x)^T) g(x))",
    complexity="2 HW C^2 + (HW)^2 C (r = 2; a quarter of the second term subsampled)",
    parameters=_parameters,
    maps=("token_matrix",),
    variants={
        "paper": {},
        "released": {"scale": True, "subsample": "input"},
        "mmcv": {"scale": True, "norm": "none"},
    },
    note=(
        "The paper's equations are the default, because on small maps its optional"
        " subsampling leaves few sources. The released code divides logits by sqrt(D)"
        " and pools the input of phi and g, where the paper's text pools their"
        " output; mmcv scales and has no norm. Kernels start from LeCun's normal"
        " instead of a normal of 0.01. The rows of a recorded matrix sum to 1 only"
        " for the two softmax functions."
    ),
)

"""Convolution, batch normalisation and pooling as in torch, for convolutional models.

They read the fields `dtype`, `param_dtype` and `axis_name` of the module in whose
compact `__call__` they stand.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.convolution import Conv
from attn.ops import transposed
from attn.settings import Invalid

HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    parent: nn.Module,
    name: str,
    x: jax.Array,
    features: int,
    size: int,
    stride: int,
    groups: int = 1,
    dilation: int = 1,
) -> jax.Array:
    """A convolution without bias, padded by half its kernel on every side.

    Weights of a dilated one are `dilation` pixels apart, and so is its padding.
    """
    # Not "SAME", which pads a strided convolution on one side only.
    return Conv(
        features,
        (size, size),
        stride,
        padding=size // 2 * dilation,
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=HE_NORMAL,
        dtype=parent.dtype or x.dtype,
        param_dtype=parent.param_dtype,
        name=name,
    )(x)


class Doubling(nn.Module):
    """A transposed convolution without bias: x [B, H, W, C] -> [B, 2H, 2W, features].

    The one of `attn.ops.transposed`, whose order the kernel [4, 4, C, features] has.

    Attributes:
        features: channels of the output.
        kernel_init: what the kernel starts from.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which the kernel is kept.
    """

    features: int
    kernel_init: nn.initializers.Initializer = HE_NORMAL
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (transposed.SIDE, transposed.SIDE, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        dtype = self.dtype or x.dtype
        return transposed.double(x.astype(dtype), kernel.astype(dtype))


class FrozenBatchNorm(nn.Module):
    """Batch normalisation that is never trained: x [..., C] -> [..., C].

    (x - mean) / sqrt(var + epsilon) * scale + bias, all four in the collection
    "batch_stats", as torchvision's FrozenBatchNorm2d has them in buffers: they are for
    the weights of a trained network, and are no parameters. At first it is the
    identity, but for epsilon.

    Attributes:
        epsilon: see above.
        scale_init: what the scale starts from.
        dtype: computation type; None takes the type of the input.
    """

    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        starts = {"mean": zeros, "var": ones, "scale": self.scale_init, "bias": zeros}
        shape = (x.shape[-1],)
        kept = {
            name: self.variable("batch_stats", name, start, None, shape).value
            for name, start in starts.items()
        }
        factor = kept["scale"] * jax.lax.rsqrt(kept["var"] + self.epsilon)
        offset = kept["bias"] - kept["mean"] * factor
        # One multiply-add in the type of the map, as in torchvision.
        dtype, places = self.dtype or x.dtype, tuple(range(x.ndim - 1))
        factor, offset = (
            jnp.expand_dims(a, places).astype(dtype) for a in (factor, offset)
        )
        return x.astype(dtype) * factor + offset


def batch_norm(
    parent: nn.Module,
    name: str,
    x: jax.Array,
    *,
    train: bool,
    zero: bool = False,
    frozen: bool = False,
) -> jax.Array:
    """Batch normalisation, whose scale starts at one, or at zero if `zero`.

    If `frozen`, neither statistics nor scale and bias are trained.
    """
    start = nn.initializers.zeros if zero else nn.initializers.ones
    dtype = parent.dtype or x.dtype
    if frozen:
        return FrozenBatchNorm(scale_init=start, dtype=dtype, name=name)(x)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=start,
        dtype=dtype,
        param_dtype=parent.param_dtype,
        axis_name=parent.axis_name,
        name=name,
    )(x)


def shrink(x: jax.Array, stride: int) -> jax.Array:
    """Average pooling by `stride` in place of a strided convolution.

    The map is rounded up as the convolution does it: where `stride` does not divide
    it, the last window is smaller.
    """
    if stride == 1:
        return x
    _, height, width, _ = x.shape
    padding = ((0, -height % stride), (0, -width % stride))
    window = (stride, stride)
    return nn.avg_pool(x, window, window, padding=padding, count_include_pad=False)


def average(x: jax.Array, pool: int) -> jax.Array:
    """Average pooling, [B, H, W, C] -> [B, H // pool, W // pool, C].

    Raises:
        Invalid: a map smaller than `pool`.
    """
    if min(x.shape[1:3]) < pool:
        raise Invalid(
            f"pool={pool} is larger than its map of {x.shape[1]}x{x.shape[2]}"
        )
    return x if pool == 1 else nn.avg_pool(x, (pool, pool), (pool, pool))

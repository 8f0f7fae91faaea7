"""Images to tokens: patches, their grid, and a learned position for each.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021,
https://arxiv.org/abs/2010.11929, equation 1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models.layers.dense import NORMAL
from attn.settings import Invalid


def patch_grid(x: jax.Array, patch: int) -> tuple[int, int]:
    """Rows and columns of square patches of images [B, H, W, C].

    Raises:
        Invalid: the patches do not divide the images; the message has the nearest
            sizes that they do.
    """
    height, width = x.shape[1:3]
    if height % patch or width % patch:
        low = "x".join(str(max(1, n // patch) * patch) for n in (height, width))
        high = "x".join(str(-(-n // patch) * patch) for n in (height, width))
        fit = low if low == high else f"{low} or {high}"
        raise Invalid(
            f"patch_size={patch} does not divide the image of {height}x{width};"
            f" images of {fit} fit"
        )
    return height // patch, width // patch


def embed_patches(parent: nn.Module, x: jax.Array, width: int) -> jax.Array:
    """Images [B, H, W, C] to tokens [B, T, width], by a linear map of each patch."""
    side = (parent.patch_size, parent.patch_size)
    patches = nn.Conv(
        width,
        side,
        side,
        padding="VALID",
        kernel_init=NORMAL,
        dtype=x.dtype,
        param_dtype=parent.param_dtype,
        name="embed",
    )(x)
    return patches.reshape(len(x), -1, width)


def token(parent: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """A learned token beside the tokens x [B, T, C], [B, 1, C]."""
    value = parent.param(name, NORMAL, (1, 1, x.shape[-1]), parent.param_dtype)
    return jnp.broadcast_to(value.astype(x.dtype), (len(x), 1, x.shape[-1]))


def add_positions(parent: nn.Module, x: jax.Array) -> jax.Array:
    """Adds a learned vector to each of the tokens, [B, T, C].

    Raises:
        Invalid: the variables are for another number of tokens.
    """
    _, length, width = x.shape
    if parent.has_variable("params", "position"):
        learnt = parent.get_variable("params", "position").shape[1]
        if learnt != length:
            raise Invalid(
                f"the position embedding is for {learnt} tokens, but the image has"
                f" {length}: it takes images of the size given to init"
            )
    shape = (1, length, width)
    position = parent.param("position", NORMAL, shape, parent.param_dtype)
    return x + position.astype(x.dtype)

"""Vision Transformer, with slots for attention.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale", ICLR 2021, https://arxiv.org/abs/2010.11929, equations 1 to 4. The sizes Ti
and S, and the initialisation, are those of DeiT: Touvron et al., "Training
data-efficient image transformers", ICML 2021, https://arxiv.org/abs/2012.12877.

Differs from the paper: the classifier is one linear layer also in pre-training.
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.modules import position as positions

# Width, depth and number of heads.
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
# How many scopes may narrow each slot.
PLACES = {"block.pre": 1, "mixer": 1, "block.post": 1, "pool": 0}
NORMAL = nn.initializers.truncated_normal(0.02)


class Block(nn.Module):
    """One pre-norm transformer block: tokens [B, T, C] -> [B, T, C].

    Attributes:
        given: settings of the host for attentions that have them.
        position: what a mixer gets as `position` if it has that setting.
        others: as in ViT, `fill` narrowed to this block.
    """

    given: Mapping[str, Any]
    position: Mapping[str, Any]
    mlp_ratio: float
    dropout: float
    fill: Mapping[str, Any]
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    axis_name: str | None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, grid: tuple[int, int], train: bool
    ) -> jax.Array:
        x = self._attend("block.pre", x, grid, train)
        if slots.filled(self.fill, "mixer"):
            y = self._attend("mixer", layer_norm(self, "norm1", x), grid, train)
            x = x + self._drop(y, train)
        x = x + self._mlp(layer_norm(self, "norm2", x), train)
        return self._attend("block.post", x, grid, train)

    def _attend(
        self, place: str, x: jax.Array, grid: tuple[int, int], train: bool
    ) -> jax.Array:
        given = dict(self.given)
        if place == "mixer":
            given["position"] = self.position
        module = slots.build(self, place, **given)
        if module is None:
            return x
        return slots.on_tokens(module, x, grid=grid, train=train)

    def _mlp(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        hidden = dense(self, "mlp_in", x, int(channels * self.mlp_ratio))
        hidden = self._drop(nn.gelu(hidden, approximate=False), train)
        return self._drop(dense(self, "mlp_out", hidden, channels), train)

    def _drop(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class ViT(nn.Module):
    """Vision Transformer: images [B, H, W, C] -> logits [B, num_classes], float32.

    The position embedding is learned, unless another one is asked for: one vector a
    patch and one for the class token, so that its variables fit one image size, the
    one given to `init`. LayerNorm has eps 1e-6 and GELU is exact. Linear weights, the
    class token and the position embedding start as a normal of 0.02 truncated at two
    standard deviations, as in DeiT.

    Slots, each but the last of which may be narrowed, "block3/mixer", blocks counting
    from 0:

        block.pre    all tokens, before a block
        mixer        the token attention of a block, `multi_head` unless it is filled;
                     "none" leaves a block its MLP alone
        block.post   all tokens, after a block
        pool         a token attention that makes the vector to classify, instead of
                     the class token (or the mean token): that is its query, and its
                     keys and values are all tokens after the last LayerNorm

    An attention with a setting `num_heads` gets the host's, unless the filling gives
    one, and so does one with a setting `prefix` (1 with a class token). A map attention
    gets the map of the patches, and the class token bypasses it.

    Attributes:
        num_classes: number of logits.
        size: "tiny", "small", "base" or "large": the width, depth and heads in SIZES.
        patch_size: side of a patch, in pixels; it must divide the image.
        width, depth, num_heads: instead of what `size` has.
        mlp_ratio: hidden width of the MLP over the width.
        position: name of an encoding in `attn.modules.position`, or a mapping with
            "name" and its settings. One that adds to tokens does so after the patches
            are embedded, "conditional" after the first block; others act in the
            mixers, and each has its own parameters. {"name": "learned",
            "trained_grid": (14, 14)} takes vectors of 14x14 patches to other images
            by interpolation, and so does "learned_2d" by itself.
        pool: "class" classifies a class token (the paper), "mean" the mean of the
            patches, without class token.
        dropout: rate after the embedding, the mixer and both layers of the MLP; the
            paper has 0.1 on ImageNet, DeiT 0.
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes it
            as `slots`.
        dtype: computation type; None takes the type of the images. LayerNorm's
            statistics and the classifier are float32.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which attentions synchronise batch statistics.

    Raises:
        ValueError: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, map attentions alone beside a
            class token, or a position encoding that no mixer takes; when it is
            called, an image that the patches do not divide.
    """

    num_classes: int
    size: Literal["tiny", "small", "base", "large"] = "base"
    patch_size: int = 16
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    mlp_ratio: float = 4.0
    position: str | Mapping[str, Any] = "learned"
    pool: Literal["class", "mean"] = "class"
    dropout: float = 0.0
    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if self.size not in SIZES:
            raise settings.unknown("size of a ViT", self.size, SIZES)
        self._check_sizes()
        self.position = positions.check(self.position)
        depth = self._sizes()[1]
        self.fill = slots.check(
            {"mixer": {"name": "multi_head"}, **slots.flatten(self.fill)},
            places=PLACES,
            scopes={f"block{index}": {} for index in range(depth)},
            given=self._given(),
        )
        self._check_reach()
        self._check_position()
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots, in the order in which tokens meet them."""
        return list(PLACES)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        depth, grid, encoding = self._sizes()[1], self._grid(x), self._encoding()
        of_tokens = "tokens" in encoding.acts
        x = self._embed(x.astype(self.dtype or x.dtype))
        if not encoding.blocks_before:
            x = encoding.tokens(x, grid)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for index in range(depth):
            block = Block(
                given=self._given(),
                position=positions.check("none" if of_tokens else self.position),
                mlp_ratio=self.mlp_ratio,
                dropout=self.dropout,
                fill=slots.narrow(self.fill, f"block{index}"),
                dtype=x.dtype,
                param_dtype=self.param_dtype,
                axis_name=self.axis_name,
                name=f"block{index}",
            )
            x = block(x, grid=grid, train=train)
            if index + 1 == encoding.blocks_before:
                x = encoding.tokens(x, grid)
        x = self._pool(layer_norm(self, "norm", x), grid, train)
        return nn.Dense(
            self.num_classes,
            kernel_init=NORMAL,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            name="classifier",
        )(x.astype(jnp.float32))

    def _sizes(self) -> tuple[int, int, int]:
        """Width, depth and number of heads."""
        given = (self.width, self.depth, self.num_heads)
        pairs = zip(given, SIZES[self.size], strict=True)
        return tuple(usual if own is None else own for own, usual in pairs)

    def _given(self) -> FrozenDict:
        """Settings for every attention that has them."""
        prefix = 1 if self.pool == "class" else 0
        return FrozenDict({"num_heads": self._sizes()[2], "prefix": prefix})

    def _grid(self, x: jax.Array) -> tuple[int, int]:
        """Rows and columns of patches of the images."""
        _, height, width, _ = x.shape
        patch = self.patch_size
        if height % patch or width % patch:
            low, high = (
                "x".join(
                    str(max(1, up(side, patch)) * patch) for side in (height, width)
                )
                for up in (int.__floordiv__, lambda a, b: -(-a // b))
            )
            fit = low if low == high else f"{low} or {high}"
            raise ValueError(
                f"patch_size={patch} does not divide the image of {height}x{width};"
                f" images of {fit} fit"
            )
        return height // patch, width // patch

    def _embed(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, C] to tokens [B, T, C], the class token first."""
        width, _, _ = self._sizes()
        batch, patch = len(x), self.patch_size
        kinds = {"dtype": x.dtype, "param_dtype": self.param_dtype}
        patches = nn.Conv(
            width,
            (patch, patch),
            (patch, patch),
            padding="VALID",
            kernel_init=NORMAL,
            name="embed",
            **kinds,
        )(x)
        tokens = patches.reshape(batch, -1, width)
        if self.pool == "class":
            token = self.param("class_token", NORMAL, (1, 1, width), self.param_dtype)
            token = jnp.broadcast_to(token.astype(x.dtype), (batch, 1, width))
            tokens = jnp.concatenate([token, tokens], axis=1)
        return tokens

    def _encoding(self) -> positions.Position:
        """The position encoding, with its variables at "position"."""
        given = {"prefix": self._given()["prefix"], "param_dtype": self.param_dtype}
        if not issubclass(positions.find(self.position["name"]), positions.Learned):
            return positions.build(self.position, called="position", **given)
        # Its one array is called "position" already, and is not put one level deeper.
        encoding = positions.build(self.position, called="learned", **given)
        nn.share_scope(self, encoding)
        return encoding

    def _pool(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        """Tokens [B, T, C] to the vector to classify, [B, C]."""
        module = slots.build(self, "pool", **self._given())
        if module is not None and slots.contract(type(module)) == "map":
            x = slots.on_tokens(module, x, grid=grid, train=train)
            module = None
        if self.pool == "class":
            query = x[:, :1]
        else:
            query = x.mean(axis=1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
        y = query if module is None else module(query, x, train=train)
        return y[:, 0]

    def _check_sizes(self) -> None:
        width, depth, num_heads = self._sizes()
        for name, value in (
            ("num_classes", self.num_classes),
            ("patch_size", self.patch_size),
            ("width", width),
            ("depth", depth),
            ("num_heads", num_heads),
        ):
            if value < 1:
                raise ValueError(f"{name} of a ViT must be at least 1, got {value}")
        if width % num_heads:
            fit = [n for n in range(1, width + 1) if width % n == 0]
            fit = sorted(fit, key=lambda n: abs(n - num_heads))[:3]
            raise ValueError(
                f"num_heads={num_heads} does not divide width={width};"
                f" heads that do: {', '.join(map(str, sorted(fit)))}"
            )

    def _check_reach(self) -> None:
        """Refuses a filling with which the class token never sees the image."""
        if self.pool != "class":
            return
        pool = slots.filled(self.fill, "pool")
        if pool is not None and slots.contract(pool) == "map":
            raise ValueError(
                f"slot 'pool': {self.fill['pool']['name']!r} attends to maps, which the"
                f" class token bypasses; with pool='mean' it pools the patches"
            )
        _, depth, _ = self._sizes()
        inside = [slots.narrow(self.fill, f"block{index}") for index in range(depth)]
        readers = [pool, *(slots.filled(fill, p) for fill in inside for p in PLACES)]
        if not any(module and slots.contract(module) == "token" for module in readers):
            raise ValueError(
                "no slot of this ViT has a token attention, so that its class token"
                " never sees the image; use pool='mean'"
            )

    def _check_position(self) -> None:
        """Refuses an encoding inside attentions of which none takes one."""
        name = self.position["name"]
        acts = positions.find(name).acts
        if not acts or "tokens" in acts:
            return
        depth = self._sizes()[1]
        fills = [slots.narrow(self.fill, f"block{index}") for index in range(depth)]
        mixers = [slots.filled(fill, "mixer") for fill in fills]
        takers = [m for m in mixers if m and "position" in m.__dataclass_fields__]
        if not takers:
            raise ValueError(
                f"position {name!r} acts inside an attention, but no mixer of this ViT"
                " has a setting 'position', as 'multi_head' has"
            )


def layer_norm(parent: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """Normalises each token over its channels, with scale and bias."""
    return nn.LayerNorm(
        epsilon=1e-6, dtype=x.dtype, param_dtype=parent.param_dtype, name=name
    )(x)


def dense(parent: nn.Module, name: str, x: jax.Array, features: int) -> jax.Array:
    """A linear layer on the channels."""
    return nn.Dense(
        features,
        kernel_init=NORMAL,
        dtype=x.dtype,
        param_dtype=parent.param_dtype,
        name=name,
    )(x)

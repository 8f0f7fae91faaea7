"""What every position encoding offers, and the one that is none.

An encoding acts at one or more of three places, and leaves the others as they are:

    tokens   added to tokens, before blocks or before queries and keys are made
    rotate   on queries and keys
    bias     added to the logits of their products

Letters: B batch, T targets, S sources, P prefix tokens, H x W grid, C channels,
N heads of queries, K heads of keys, D channels of a head.

Tokens of an image are P prefix tokens, such as a class token, and then the H W of the
grid, row by row. Encodings of a sequence number all of them from 0 and need no grid;
those of a grid treat a prefix token as one without a place, each as it says.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.ops import positions

Grid = tuple[int, int]


class Position(nn.Module):
    """No position at all: attention as a function of a set.

    Attributes:
        prefix: P, the number of tokens before those of the grid.
        param_dtype: type in which parameters are kept.
    """

    prefix: settings.Count = 0
    param_dtype: jnp.dtype = jnp.float32

    # Of "tokens", "rotate" and "bias".
    acts: ClassVar[tuple[str, ...]] = ()
    # How many blocks of a model come before the tokens are changed.
    blocks_before: ClassVar[int] = 0
    # Whether it needs the grid on which tokens lie.
    of_grid: ClassVar[bool] = False
    # Whether no token is told of later ones.
    causal: ClassVar[bool] = True
    # What must divide C, if it acts on tokens, or D, if it rotates.
    divisor: ClassVar[int] = 1

    def tokens(self, x: jax.Array, grid: Grid | None) -> jax.Array:
        """Tokens that know their places: [B, T, C] -> [B, T, C], in their dtype.

        Args:
            x: tokens.
            grid: (H, W) with P + H W = T, where the encoding is one of a grid.

        Raises:
            Invalid: the grid is missing or is not T, or C does not fit.
        """
        del grid
        return x

    def rotate(
        self, q: jax.Array, k: jax.Array, grid: Grid | None
    ) -> tuple[jax.Array, jax.Array]:
        """Queries [B, T, N, D] and keys [B, S, K, D] that know their places.

        Arguments and errors as for `tokens`; on a grid T must be S.
        """
        del grid
        return q, k

    def bias(self, q: jax.Array, k: jax.Array, grid: Grid | None) -> jax.Array | None:
        """What is added to the logits, [1 or B, N, T, S] in float32, or None.

        Arguments and errors as for `rotate`; the queries and keys are those whose
        products the logits are, before the factor 1 / sqrt(D).
        """
        del q, k, grid

    def at(self, start: jax.Array | None, length: int | None) -> "Position | Part":
        """The encoding of tokens from `start` on, of `length` in all; None: of all."""
        return self if start is None else Part(self, start, length)

    def part_tokens(
        self, x: jax.Array, grid: Grid | None, start: jax.Array, length: int
    ) -> jax.Array:
        """`tokens` of some tokens, from the place `start` on, of `length` in all."""
        y = self.tokens(_whole(x, start, length), grid)
        return part(y, start, x.shape[1])

    def part_rotate(
        self,
        q: jax.Array,
        k: jax.Array,
        grid: Grid | None,
        start: jax.Array,
        length: int,
    ) -> tuple[jax.Array, jax.Array]:
        """`rotate` of some queries and keys, as `part_tokens`."""
        turned = self.rotate(*(_whole(x, start, length) for x in (q, k)), grid)
        q, k = (part(x, start, q.shape[1]) for x in turned)
        return q, k

    def part_bias(
        self, q: jax.Array, k: jax.Array, grid: Grid | None, start: jax.Array
    ) -> jax.Array | None:
        """`bias` of queries from the place `start` on and of all keys."""
        whole = self.bias(_whole(q, start, k.shape[1]), k, grid)
        return None if whole is None else part(whole, start, q.shape[1], axis=2)

    def parameters(
        self,
        places: tuple[int, ...],
        *,
        channels: int,
        num_heads: int,
        head_dim: int,
    ) -> int:
        """The exact number of parameters for tokens on `places`: (T,) or (H, W)."""
        del places, channels, num_heads, head_dim
        return 0

    def _grid(self, grid: Grid | None, *tokens: jax.Array) -> Grid:
        """The grid, checked: all of `tokens` have P tokens and those of the grid."""
        name = type(self).__name__
        if grid is None:
            raise settings.Invalid(
                f"{name} needs to know the grid (rows, columns) on which tokens lie"
            )
        if min(grid) < 1:
            raise settings.Invalid(
                f"a grid has at least one row and column, got {grid}"
            )
        height, width = grid
        for x in tokens:
            if x.shape[1] != self.prefix + height * width:
                raise settings.Invalid(
                    f"{name} with prefix={self.prefix} on the grid {height}x{width}"
                    f" takes {self.prefix + height * width} tokens, got {x.shape[1]}"
                )
        return height, width

    def _divisible(self, x: jax.Array) -> int:
        """The number of channels of tokens or heads, which `divisor` divides."""
        channels = x.shape[-1]
        try:
            positions.check_divisible(type(self).__name__, channels, self.divisor)
        except ValueError as error:
            raise settings.Invalid(str(error)) from error
        return channels

    def _kept(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the parameter `name`: as it is, or else as it is to be made."""
        if self.has_variable("params", name):
            return self.get_variable("params", name).shape
        return shape

    def _table(self, name: str, shape: tuple[int, ...], initial: Any) -> jax.Array:
        """The parameter `name`; made with `shape` if it does not exist."""
        return self.param(name, initial, self._kept(name, shape), self.param_dtype)


class Part:
    """An encoding for some tokens in a row: those that a decoder appends.

    Attributes:
        encoding: that of all tokens.
        start: place of the first one.
        length: number of places in all.
    """

    def __init__(self, encoding: Position, start: jax.Array, length: int):
        self.encoding, self.start, self.length = encoding, start, length

    def tokens(self, x: jax.Array, grid: Grid | None) -> jax.Array:
        if "tokens" not in self.encoding.acts:
            return x
        return self.encoding.part_tokens(x, grid, self.start, self.length)

    def rotate(
        self, q: jax.Array, k: jax.Array, grid: Grid | None
    ) -> tuple[jax.Array, jax.Array]:
        if "rotate" not in self.encoding.acts:
            return q, k
        return self.encoding.part_rotate(q, k, grid, self.start, self.length)

    def bias(self, q: jax.Array, k: jax.Array, grid: Grid | None) -> jax.Array | None:
        if "bias" not in self.encoding.acts:
            return None
        return self.encoding.part_bias(q, k, grid, self.start)


def _whole(x: jax.Array, start: jax.Array, length: int) -> jax.Array:
    """Tokens [B, T, ...] at their place in zeros [B, L, ...]."""
    zeros = jnp.zeros((x.shape[0], length, *x.shape[2:]), x.dtype)
    return jax.lax.dynamic_update_slice_in_dim(zeros, x, start, axis=1)


def part(x: jax.Array, start: jax.Array, count: int, axis: int = 1) -> jax.Array:
    """So many places of an axis, from `start` on."""
    return jax.lax.dynamic_slice_in_dim(x, start, count, axis)


def widen(bias: jax.Array, prefix: int, special: jax.Array | None) -> jax.Array:
    """A bias of a grid with prefix tokens: [N, H W, H W] -> [N, P + H W, P + H W].

    Args:
        bias: of targets and sources on the grid.
        prefix: P.
        special: [3, N], what prefix targets add for the grid, targets of the grid for
            the prefix, and the prefix for itself, as BEiT's class token; None is 0.
    """
    if not prefix:
        return bias
    bias = jnp.pad(bias, ((0, 0), (prefix, 0), (prefix, 0)))
    if special is None:
        return bias
    down, right, both = special[:, :, None, None]
    bias = bias.at[:, :prefix, prefix:].set(down)
    bias = bias.at[:, prefix:, :prefix].set(right)
    return bias.at[:, :prefix, :prefix].set(both)

"""Window attention: tokens attend inside the window of the grid they lie in.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021, https://arxiv.org/abs/2103.14030, section 3.2, equations 2 and 4:

    softmax(Q K^T / sqrt(D) + B) V    in each window of M_h x M_w tokens,

where B is a learned bias for each head and each difference of place.

Letters used in shapes:
    B batch, T tokens, C channels, N heads, D channels of one head, L windows, M places
    of one window.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn import ops, settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token._grid import Side, check_grid, pair
from attn.modules.token.base import Call, Heads
from attn.ops import positions
from attn.ops import window as windows


class Window(Heads):
    """Token attention in windows: q [B, T, C] with grid=(H, W) -> [B, T, C].

    A grid that the windows do not divide is padded below and on the right.

    Attributes:
        window: side of a window, or its (rows, columns), in tokens. At most the grid.
            The paper has 7, and 12 for images of 384 pixels.
        relative_bias: whether there is the table B, which starts as a normal of 0.02
            truncated at two standard deviations.
        padding: "masked" (the paper: padded values are masked out), or "attended" (the
            released code for detection, torchvision: padded tokens have zeros before
            the linear maps, and are read). The same where the windows divide the grid.
        attention_dropout: rate at which single weights are dropped in training.
        output_dropout: rate at which outputs are dropped in training.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    window: Side = 7
    relative_bias: bool = True
    padding: Literal["masked", "attended"] = "masked"
    attention_dropout: settings.Decay = 0.0
    output_dropout: settings.Decay = 0.0

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        grid = self._check(call)
        batch, length, channels = call.q.shape
        window, shift = pair(self.window), self._shift(grid)

        def cut(x: jax.Array) -> jax.Array:
            x = x.reshape(batch, *grid, channels)
            return windows.partition_windows(x, window, shift)

        x = cut(call.q)
        tokens = (_flat(cut(call.queries)), _flat(cut(call.keys)), _flat(x))
        y = self._attend(tokens, call, grid)
        y = windows.merge_windows(y.reshape(x.shape), grid, window, shift)
        y = y.reshape(batch, length, channels)
        return nn.Dropout(self.output_dropout, deterministic=not call.train)(y)

    def _shift(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(y, x) by which windows are moved on `grid`."""
        del grid
        return 0, 0

    def _attend(
        self, tokens: tuple[jax.Array, ...], call: Call, grid: tuple[int, int]
    ) -> jax.Array:
        """Attention inside windows, of tokens for queries, keys and values.

        Each is [B L, M, C], as what it returns.
        """
        batch, channels = call.q.shape[0], call.q.shape[-1]
        query, key, value = (
            self.linear(name, x)
            for name, x in zip(("query", "key", "value"), tokens, strict=True)
        )
        options = {
            "bias": self._bias(query.shape[2]),
            "mask": self._mask(call.mask, grid, batch),
        }

        def matrix():
            weights = ops.attention_weights(query, key, **options)
            return self._spread(weights, grid, batch)

        sow(self, "token_matrix", matrix, grid=grid)
        dropped = {}
        if call.train and self.attention_dropout > 0:
            dropped["dropout_rate"] = self.attention_dropout
            dropped["dropout_rng"] = self.make_rng("dropout")
        y = ops.dot_product_attention(query, key, value, **options, **dropped)
        return self.merge(y, channels)

    def _bias(self, num_heads: int) -> jax.Array | None:
        """The bias of the logits, [N, M, M]."""
        if not self.relative_bias:
            return None
        window = pair(self.window)
        shape = (2 * window[0] - 1, 2 * window[1] - 1, num_heads)
        if self.has_variable("params", "bias_table"):
            found = self.get_variable("params", "bias_table").shape
            if found != shape:
                raise settings.Invalid(
                    f"a window of {window[0]}x{window[1]} needs a bias table of shape"
                    f" {shape}, but the variables have one of {found}"
                )
        start = nn.initializers.truncated_normal(0.02)
        table = self.param("bias_table", start, shape, self.param_dtype)
        return positions.relative_bias(table, window)

    def _mask(self, mask, grid, batch) -> jax.Array | None:
        """What may attend to what in all windows, [B L, 1 or N, M, M], or None."""
        shape = pair(self.window), self._shift(grid)
        inside = windows.window_mask(
            grid, *shape, see_padding=self.padding == "attended"
        )
        own = None if inside.all() else jnp.asarray(inside)[None, :, None]
        if mask is not None:
            tokens = windows.window_tokens(grid, *shape)
            given = _cut_mask(mask, tokens, grid[0] * grid[1])
            own = given if own is None else own & given
        if own is None:
            return None
        own = jnp.broadcast_to(own, (batch, len(inside), *own.shape[2:]))
        return _flat(own)

    def _spread(self, weights, grid, batch) -> jax.Array:
        """Weights of windows [B L, N, M, M] as one matrix [B, N, T, T].

        With padding="attended", rows lack the weight of the padding they read.
        """
        tokens = windows.window_tokens(grid, pair(self.window), self._shift(grid))
        length, heads = grid[0] * grid[1], weights.shape[1]
        weights = weights.reshape(batch, len(tokens), *weights.shape[1:])
        matrix = jnp.zeros((batch, heads, length, length), weights.dtype)
        places = matrix.at[:, :, tokens[:, :, None], tokens[:, None, :]]
        return places.set(weights.swapaxes(1, 2), mode="drop")  # H W is padding

    def _check(self, call: Call) -> tuple[int, int]:
        """The grid, on which there is room for a window."""
        name, tokens = type(self).__name__, call.q.shape[1]
        if call.cross:
            raise settings.Invalid(
                f"{name} takes no kv: its tokens attend to each other"
            )
        grid = check_grid(name, call.grid, tokens, tokens)
        rows, columns = pair(self.window)
        if rows > grid[0] or columns > grid[1]:
            raise settings.Invalid(
                f"window {rows}x{columns} is larger than its grid {grid[0]}x{grid[1]};"
                f" windows up to {min(rows, grid[0])}x{min(columns, grid[1])} fit"
            )
        return grid


def _flat(x: jax.Array) -> jax.Array:
    """[B, L, ...] -> [B L, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _cut_mask(mask: jax.Array, tokens: np.ndarray, length: int) -> jax.Array:
    """A mask [B, N, T, T], any of them 1, in windows: [B, L, N, M, M].

    Padding, token number `length`, is masked for targets that see nothing else.
    """
    # Padding reads what some token may: its own row is dropped in the end.
    targets, sources = (np.minimum(tokens, size - 1) for size in mask.shape[-2:])
    given = mask[:, :, targets[:, :, None], sources[:, None, :]].swapaxes(1, 2)
    padding = (tokens == length)[None, :, None, None, :]
    some = jnp.any(given & ~padding, axis=-1, keepdims=True)
    return jnp.where(padding, some, given) if padding.any() else given


def parameters(module: Window, shape: tuple[int, ...]) -> int:
    """Number of parameters of a window attention, shifted or not, for the card."""
    channels = shape[-1]
    heads = module.head_shape(channels)[0]
    rows, columns = pair(module.window)
    table = (2 * rows - 1) * (2 * columns - 1) * heads * module.relative_bias
    return module.count(channels) + table


PAPER = Paper(
    title=("Swin Transformer: Hierarchical Vision Transformer using Shifted Windows"),
    authors="Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo",
    year=2021,
    arxiv="2103.14030",
)

Window.card = Card(
    family="token",
    contract="token",
    paper=PAPER,
    formula="softmax(Q K^T / sqrt(D) + B) V in each window of M_h x M_w tokens",
    complexity="4 T C^2 + 2 M_h M_w T C",
    parameters=parameters,
    maps=("token_matrix",),
    supports=frozenset({"any resolution", "grid", "mask", "kv_mask"}),
    variants={"masked": {}, "attended": {"padding": "attended"}},
    note=(
        "4 C^2 + 4 C + (2 M_h - 1)(2 M_w - 1) N parameters. Where windows do not divide"
        " the grid, padding is masked, as section 3.2 has it; the released code and"
        " torchvision let tokens read it, 'attended'. The recorded matrix is that of"
        " the whole grid, zero outside the windows."
    ),
)

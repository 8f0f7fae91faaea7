"""Global second-order pooling (GSoP): gates from a covariance, read row by row.

Gao, Xie, Wang, Li, "Global Second-order Pooling Convolutional Networks", CVPR 2019,
https://arxiv.org/abs/1811.12006, the GSoP block along channels and along positions.
Released code:
https://github.com/ZilinGao/Global-Second-order-Pooling-Convolutional-Networks.

Letters used in shapes:
    B batch, H x W map, C channels, D channels of which the covariance is pooled, P
    cells of a grid over the map, M rows of a covariance: D or P.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.covariance import covariance_pool
from attn.ops.pool import adaptive_average_pool
from attn.ops.shapes import as_map
from attn.settings import Positive

ROW_CHANNELS = 4  # what each row of a covariance becomes


class GlobalSecondOrder(nn.Module):
    """Gates channels or positions: [B, H, W, C] -> x * gate, [B, H, W, C].

    A linear map with a norm makes D channels z of relu(x). The gate of channels is
    sigmoid(W rows(BN(cov_HW(relu(z))))), with a product of each row of the covariance
    with 4 kernels of its own. That of positions is the same of the covariance of the
    cells of a grid over all channels, with a ReLU behind the rows; cells become the map
    again by adaptive average pooling. All of it is in float32. `card` tells the paper
    and the count of parameters.

    Attributes:
        along: "channel", "spatial", or "both", x * channels + x * positions.
        channels: D; the paper uses 128.
        side: of the grid, so that P = side^2; the paper uses 8.
        stride: steps between the positions that the covariance of channels reads; the
            released code has 2 in the first stage.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
        axis_name: pmap axis over which batch statistics are averaged.
    """

    along: Literal["channel", "spatial", "both"] = "channel"
    channels: Positive = 128
    side: Positive = 8
    stride: Positive = 1
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = as_map(x, self.dtype)
        seen = nn.relu(x.astype(jnp.float32))
        gate = jnp.zeros((), x.dtype)
        if self.along != "spatial":
            gate += self._channel_gate(seen, train).astype(x.dtype)
        if self.along != "channel":
            gate += self._spatial_gate(seen, train).astype(x.dtype)
        return x * gate

    def _channel_gate(self, x: jax.Array, train: bool) -> jax.Array:
        """What to look at, [B, 1, 1, C]."""
        width = x.shape[-1]
        z = self._reduce("channel", x[:, :: self.stride, :: self.stride], train)
        rows = self._rows("channel", covariance_pool(nn.relu(z)), train)
        gate = nn.sigmoid(self._linear("channel_excite", width, rows))
        sow(self, "channel_gate", gate)
        return gate[:, None, None]

    def _spatial_gate(self, x: jax.Array, train: bool) -> jax.Array:
        """Where to look, [B, H, W, 1]."""
        grid = (self.side, self.side)
        z = adaptive_average_pool(self._reduce("spatial", x, train), grid)
        cells = z.reshape(z.shape[0], self.side**2, self.channels).swapaxes(1, 2)
        rows = nn.relu(self._rows("spatial", covariance_pool(cells), train))
        gate = nn.sigmoid(self._linear("spatial_excite", self.side**2, rows))
        gate = adaptive_average_pool(
            gate.reshape(gate.shape[0], *grid, 1), x.shape[1:3]
        )
        sow(self, "spatial_map", lambda: gate[..., 0])
        return gate

    def _reduce(self, branch: str, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, D]."""
        z = self._linear(f"{branch}_reduce", self.channels, x)
        return self._norm(f"{branch}_reduce_norm", z, train)

    def _rows(self, branch: str, covariance: jax.Array, train: bool) -> jax.Array:
        """What each row becomes by itself, [B, M, M] -> [B, 4 M]."""
        size = covariance.shape[-1]
        # a row is a channel of the norm: axis 1 are its columns, by symmetry
        rows = self._norm(f"{branch}_row_norm", covariance, train)
        start = nn.initializers.lecun_normal(in_axis=0, out_axis=2, batch_axis=1)
        shape = (size, size, ROW_CHANNELS)
        kernel = self.param(f"{branch}_row_kernel", start, shape, self.param_dtype)
        zeros = nn.initializers.zeros_init()
        bias = self.param(f"{branch}_row_bias", zeros, shape[1:], self.param_dtype)
        y = jnp.einsum("bji,jio->bio", rows, kernel.astype(rows.dtype))
        y += bias[None].astype(y.dtype)
        return y.reshape(y.shape[0], size * ROW_CHANNELS)

    def _linear(self, name: str, width: int, x: jax.Array) -> jax.Array:
        kinds = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        return nn.Dense(width, name=name, **kinds)(x)

    def _norm(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
            name=name,
        )(x)


def _parameters(module: GlobalSecondOrder, shape: tuple[int, ...]) -> int:
    def branch(rows: int, gates: int) -> int:
        reduce = shape[-1] * module.channels + module.channels
        norms = 2 * module.channels + 2 * rows
        own = ROW_CHANNELS * (rows + 1) * rows
        return reduce + norms + own + ROW_CHANNELS * rows * gates + gates

    channel = branch(module.channels, shape[-1]) * (module.along != "spatial")
    cells = module.side**2
    return channel + branch(cells, cells) * (module.along != "channel")


GlobalSecondOrder.card = Card(
    family="order",
    contract="map",
    paper=Paper(
        title="Global Second-order Pooling Convolutional Networks",
        authors="Gao, Xie, Wang, Li",
        year=2019,
        arxiv="1811.12006",
    ),
    formula="x * sigmoid(W rows(BN(cov_HW(relu(BN(W_D relu(x)))))))",
    complexity=(
        "HWCD + HWD^2 + 4 D^2 + 4 CD + HWC (spatial: HWCD + DP^2 + 8 P^2 + HWC)"
    ),
    parameters=_parameters,
    maps=("channel_gate", "spatial_map"),
    note=(
        "C D + D + 4 D + 4 D^2 + 4 D + 4 C D + C parameters along channels. As in the"
        " released code, whose ReLUs are kept (the paper has a leaky one behind the"
        " rows), but for two things: it has a ReLU of the map that is scaled along"
        " positions, here negative values stay; and its covariance of cells is not"
        " quite centred."
    ),
)

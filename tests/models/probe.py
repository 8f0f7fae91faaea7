"""Attention modules that do something known: for finding where a slot is."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Double(nn.Module):
    """A map attention without a card, x -> 2 x."""

    @nn.compact
    def __call__(self, x, *, train):
        return 2 * x


class Increment(nn.Module):
    """A map attention, x -> x + 1."""

    @nn.compact
    def __call__(self, x, *, train):
        return x + 1


class Ramp(nn.Module):
    """A map attention, multiplies row h and column w by 1 + h + 10 w."""

    @nn.compact
    def __call__(self, x, *, train):
        rows = jnp.arange(x.shape[1])[None, :, None, None]
        columns = jnp.arange(x.shape[2])[None, None, :, None]
        return x * (1 + rows + 10 * columns)


class TokenRamp(nn.Module):
    """A token attention, multiplies token t by 1 + t, or by what its grid says."""

    wants_grid: bool = True

    @nn.compact
    def __call__(self, q, kv=None, *, mask=None, grid=None, train):
        assert (grid is not None) == self.wants_grid
        place = jnp.arange(q.shape[1])
        if grid is not None:
            rows, columns = jnp.divmod(place, grid[1])
            place = rows + 10 * columns
        return q * (1 + place)[None, :, None]


class Reader(nn.Module):
    """A token attention, adds the mean of what it reads."""

    num_heads: int

    @nn.compact
    def __call__(self, q, kv=None, *, mask=None, grid=None, train):
        return q + (q if kv is None else kv).mean(axis=1, keepdims=True)


class Crop(nn.Module):
    """A map attention that changes the shape of its map."""

    @nn.compact
    def __call__(self, x, *, train):
        return x[:, :-1]


class Synchronised(nn.Module):
    """A token attention, adds the mean over all devices."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, q, kv=None, *, kv_mask=None, grid=None, train):
        return q + jnp.mean(
            q if self.axis_name is None else jax.lax.pmean(q, self.axis_name)
        )

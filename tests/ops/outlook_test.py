"""Outlook attention against a loop over windows, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from attn.ops.outlook import outlook_attention, outlook_matrix


def centres(size, stride):
    return [
        (y, x) for y in range(0, size[0], stride) for x in range(0, size[1], stride)
    ]


def loop(weights, value, stride, side):
    """Every window by itself: reads its values, and adds to its places."""
    size, total = value.shape[1:3], np.zeros(value.shape)
    reach = range(-(side // 2), side // 2 + 1)
    around = [(dy, dx) for dy in reach for dx in reach]
    flat = weights.reshape(weights.shape[0], -1, *weights.shape[3:])
    for c, (y, x) in enumerate(centres(size, stride)):
        places = [(y + dy, x + dx) for dy, dx in around]
        inside = [0 <= r < size[0] and 0 <= s < size[1] for r, s in places]
        for i, target in enumerate(places):
            for j, source in enumerate(places):
                if inside[i] and inside[j]:
                    share = flat[:, c, :, i, j, None]
                    total[:, *target] += share * value[:, *source]
    return total


def example(size, stride, side):
    rng = np.random.default_rng(0)
    grid = (len(range(0, size[0], stride)), len(range(0, size[1], stride)))
    weights = rng.normal(size=(2, *grid, 3, side**2, side**2)).astype(np.float32)
    return weights, rng.normal(size=(2, *size, 3, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "stride", "side"),
    [((4, 5), 1, 3), ((5, 4), 2, 3), ((7, 3), 3, 5)],
)
def test_is_what_a_loop_over_windows_makes(size, stride, side):
    weights, value = example(size, stride, side)
    want = loop(weights.astype(np.float64), value, stride, side)

    @jax.jit
    def run(weights, value):
        matrix = outlook_matrix(weights, size, stride=stride)
        flat = value.reshape(2, -1, 3, 4)
        again = jnp.einsum("bnts,bsnd->btnd", matrix, flat).reshape(value.shape)
        return outlook_attention(weights, value, stride=stride), again

    for found in run(weights, value):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


def test_refuses_even_windows_and_other_centres():
    weights, value = example((4, 5), 1, 3)
    with pytest.raises(ValueError, match=r"of an odd side.*\(2, 4, 5, 3, 4, 4\)"):
        outlook_attention(weights[..., :4, :4], value)
    with pytest.raises(ValueError, match="4x5 has 2x3 centres with stride 2"):
        outlook_attention(weights, value, stride=2)


def test_differs_between_devices_as_its_arrays_do():
    weights = jax.random.normal(jax.random.key(0), (8, 5, 4, 2, 9, 9))
    value = jax.random.normal(jax.random.key(1), (8, 5, 4, 2, 3))
    loss = lambda *a: jnp.sum(jnp.sin(outlook_attention(*a)))
    of_both = jax.grad(loss, argnums=(0, 1))
    spec = (PartitionSpec("data"),) * 2
    mesh = Mesh(jax.devices(), ("data",))
    program = jax.shard_map(of_both, mesh=mesh, in_specs=spec, out_specs=spec)
    pairs = zip(jax.jit(program)(weights, value), of_both(weights, value), strict=True)
    for ours, expected in pairs:
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)

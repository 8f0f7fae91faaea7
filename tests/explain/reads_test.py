"""What mechanisms are said to read by their matrix is what they make of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import modules
from attn.explain import reads, taps
from tests.explain import networks

GRID, CHANNELS = (8, 9), 16  # windows of 7 fit, and do not divide it
MATRICES = {"token_matrix", "factors"}
MORE = {
    "multi_head": [
        {"num_kv_heads": 2, "gate": "elementwise", "qk_norm": True},
        {"gate": "headwise", "position": "rotary"},
    ],
    "class_attention": [{"others": "zero"}],
    "cross_attention": [{"kv_norm": True}],
}


class Host(nn.Module):
    """Tokens through one mechanism, with or without other tokens to read from."""

    name_of_mixer: str
    settings: tuple = ()
    cross: bool = False

    @nn.compact
    def __call__(self, x, *, train):
        mixer = modules.find(self.name_of_mixer)(name="mixer", **dict(self.settings))
        if modules.card(self.name_of_mixer).contract == "map":
            y = mixer(x.reshape(len(x), *GRID, -1), train=train)
            return y.reshape(len(y), -1, y.shape[-1])
        if self.cross:
            return mixer(x[:, :5], x, train=train)
        return mixer(x, grid=GRID, train=train)


def cases():
    for name in modules.names():
        card = modules.card(name)
        if MATRICES & set(card.maps):
            for settings in [{}, *card.variants.values(), *MORE.get(name, [])]:
                yield name, settings, False
                if "cross" in card.supports:
                    yield name, settings, True


def named(case):
    name, settings, cross = case
    return "-".join([name, *map(str, settings.values()), *["cross"] * cross])


@pytest.mark.parametrize("case", list(cases()), ids=named)
def test_a_matrix_read_is_the_output_of_the_module_or_refused(case):
    name, settings, cross = case
    host = Host(name, tuple(settings.items()), cross)
    x = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, GRID[0] * GRID[1], CHANNELS)),
        jnp.float32,
    )
    variables = networks.disturbed(host, x)
    _, found = jax.jit(lambda v, x: taps.run(host, v, x, gradients=False))(variables, x)
    tap = found["mixer"]
    matrix = reads.recorded_matrix(tap)
    params = variables["params"]["mixer"]
    try:
        y = reads.read(tap, params, matrix)
    except ValueError as error:
        assert "how " in str(error)
        return
    rows = reads.rows_read(tap, matrix)
    if settings.get("padding") != "attended":  # what padding adds is not recorded
        want = np.reshape(tap.output, (2, -1, CHANNELS))[:, :rows]
        np.testing.assert_allclose(y[:, :rows], want, 1e-4, 1e-4)


def test_an_attention_that_reads_otherwise_is_refused():
    tap = taps.Tap(nn.Dense, {}, jnp.ones((1, 2, 3)), jnp.ones((1, 2, 3)), None)
    with pytest.raises(ValueError, match="how Dense reads is not known"):
        reads.read(tap, {"kernel": None}, jnp.ones((1, 1, 2, 2)))

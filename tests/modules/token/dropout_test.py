"""What the two rates of dropout drop, for every token module that has them."""

import jax
import numpy as np
import pytest

import attn
from attn import settings
from attn.modules import MODULES
from tests.modules.cases import ALL, made

NAMES = [name for name, kind in MODULES.items() if hasattr(kind, "attention_dropout")]


@pytest.fixture(scope="module", params=NAMES)
def subject(request):
    return made(next(case for case, (name, _) in ALL.items() if name == request.param))


def trained(subject, **rates):
    """Outputs in training with these rates, for two keys."""
    module = subject.module.clone(**rates)
    options = subject.plain.keywords | {"train": True}

    @jax.jit
    def run(key):
        rngs = {"dropout": key}
        return module.apply(subject.variables, subject.x, rngs=rngs, **options)

    return run(jax.random.key(0)), run(jax.random.key(1))


def test_output_dropout_drops_outputs(subject):
    one, other = trained(subject, output_dropout=0.25)
    kept = one != 0
    assert np.mean(kept) == pytest.approx(0.75, abs=0.05)
    np.testing.assert_allclose(one[kept], subject.y[kept] / 0.75, rtol=1e-4, atol=1e-4)
    assert np.mean(kept != (other != 0)) > 0.2, "another key drops others"


def test_attention_dropout_drops_weights_of_sources(subject):
    # Weights are dropped before values are read, so that no output is 0 by it.
    one, other = trained(subject, attention_dropout=0.25)
    assert np.all(one != 0)
    for y, than in ((one, subject.y), (one, other)):
        assert np.abs(y - than).max() > 0.05


def test_both_rates_are_of_the_same_modules():
    assert {name for name in MODULES if hasattr(MODULES[name], "output_dropout")} == {
        *NAMES
    }
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["attention_dropout", "output_dropout"])
@pytest.mark.parametrize("rate", [10.0, 1.0, -0.5])
def test_a_rate_that_cannot_be_is_refused(name, field, rate):
    with pytest.raises(settings.Invalid, match=rf"{field}.* got {rate}"):
        attn.create(name, **{field: rate})

"""Networks of restoration with weights of published code against that code's outputs.

The goldens are of `tests/golden/make_restoration.py`.
"""

import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from attn import interop, models, settings

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
MAKER = runpy.run_path(str(FOLDER / "make_restoration.py"))
CASES = MAKER["CASES"]


@functools.cache
def golden():
    with np.load(FOLDER / "restoration.npz") as file:
        return dict(file)


def weights(case):
    """The state dict of the golden: names and shapes are stored, values are drawn."""
    names, shapes = golden()[f"{case}/names"], golden()[f"{case}/shapes"]
    sizes = [tuple(map(int, shape.split("x"))) for shape in shapes]
    draw = MAKER["draw"]
    return {str(n): draw(str(n), s) for n, s in zip(names, sizes, strict=True)}


def model_of(case, **changes):
    name, given = CASES[case]
    return models.create(name, **{**given, **changes})


@pytest.mark.parametrize("case", list(CASES))
def test_images_are_those_of_the_published_code(case):
    model = model_of(case)
    variables = interop.from_released(weights(case), model)
    apply = jax.jit(functools.partial(model.apply, train=False))
    found = apply(variables, MAKER["images"]().astype(np.float32))
    want = golden()[f"{case}/output"]
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5)


def test_a_training_starts_with_them_and_refuses_others():
    def fit(model):
        init = functools.partial(model.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), MAKER["images"]())
        return interop.fit(state, model, variables).variables()

    state = weights("pan x3")
    assert len(fit(model_of("pan x3"))) == len(state)
    with pytest.raises(settings.Invalid, match=r"SCPA_trunk\.0\."):
        fit(model_of("pan x3", width=10))
    with pytest.raises(settings.Invalid, match="no rules for weights of released"):
        interop.from_released(state, models.create("mlp", num_classes=3))

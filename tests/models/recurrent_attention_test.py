"""RecurrentAttention against the equations of the paper, step by step, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models, settings
from attn.models import cost
from tests.ops.glimpse_test import crop

B, H, W, K = 2, 11, 14, 5
TINY = {
    "num_classes": K,
    "glimpses": 3,
    "size": 3,
    "scales": 2,
    "samples": 4,
    "eval_samples": 2,
    "patch_width": 6,
    "place_width": 5,
    "width": 7,
    "grid_size": 3,
}
ROWS = {
    "learnt": {},
    "random": {"locations": "random"},
    "soft": {"slots": {"grid": "additive_soft"}},
    "hard": {"slots": {"grid": {"name": "hard_attention", "expectation": 0.0}}},
}


def image():
    x = np.random.default_rng(0).normal(size=(B, H, W, 2))
    return x.astype(np.float32)


@functools.cache
def made(row):
    """A model, and variables that are not the initial ones."""
    model = models.create("recurrent_attention", **TINY, **ROWS[row])
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), image())
    rng = np.random.default_rng(1)
    draw = lambda a: rng.normal(scale=0.5, size=a.shape).astype(a.dtype)
    return model, jax.tree.map(draw, shapes)


@functools.cache
def outputs(row, train):
    model, variables = made(row)

    @jax.jit
    def run(key):
        return model.apply(
            variables, image(), train=train, rngs={"sample": key}, mutable=["choices"]
        )[0]

    return jax.tree.map(np.asarray, run(jax.random.key(3)))


def linear(params, name, x):
    layer = params[name]
    return x @ layer["kernel"] + layer["bias"]


def relu(x):
    return np.maximum(x, 0)


def glimpse_of_the_paper(params, picture, place):
    patches = [crop(picture, place, (3, 3), scale) for scale in range(2)]
    what = relu(linear(params, "patch", np.ravel(np.stack(patches))))
    where = relu(linear(params, "place", place))
    both = linear(params, "glimpse_of_patch", what)
    return relu(both + linear(params, "glimpse_of_place", where))


def core_of_the_paper(params, state, glimpse):
    kept = linear(params, "core_of_state", state)
    return relu(kept + linear(params, "core_of_glimpse", glimpse))


@pytest.mark.parametrize("row", ["learnt", "random"])
@pytest.mark.parametrize("train", [True, False])
def test_is_the_recurrence_of_the_paper(row, train):
    found, (model, variables) = outputs(row, train), made(row)
    params = jax.tree.map(lambda a: np.asarray(a, float), variables["params"])
    draws = model.samples if train else model.eval_samples
    assert found["places"].shape == (B, draws, 3, 2)
    for b, m in np.ndindex(B, draws):
        state = np.zeros(7)
        for t in range(3):
            place = found["places"][b, m, t].astype(float)
            if row == "learnt":
                expected = linear(params, "baseline", state)[0]
                assert found["baseline"][b, m, t] == pytest.approx(expected, rel=1e-4)
                mean = np.tanh(linear(params, "locator", state))
                off = (place - mean) / model.deviation
                density = -0.5 * off @ off - 2 * np.log(model.deviation)
                density -= np.log(2 * np.pi)
                if t and np.all(np.abs(place) < 1):  # where it was not clipped
                    log_prob = found["log_prob"][b, m, t]
                    assert log_prob == pytest.approx(density, rel=1e-3, abs=1e-3)
            glimpse = glimpse_of_the_paper(params, image()[b].astype(float), place)
            state = core_of_the_paper(params, state, glimpse)
            logits = linear(params, "classifier", state)
            np.testing.assert_allclose(found["logits"][b, m, t], logits, 1e-3, 1e-3)


def test_soft_attention_reads_the_same_glimpses_at_places_of_a_grid():
    found, (_, variables) = outputs("soft", train=True), made("soft")
    params = jax.tree.map(lambda a: np.asarray(a, float), variables["params"])
    assert set(found) == {"logits"} and found["logits"].shape == (B, 1, 3, K)
    for b in range(B):
        grid = [(x, y) for y in (-2 / 3, 0, 2 / 3) for x in (-2 / 3, 0, 2 / 3)]
        sources = np.stack(
            [
                glimpse_of_the_paper(params, image()[b].astype(float), np.array(place))
                for place in grid
            ]
        )
        state = np.zeros(7)
        for t in range(3):
            inner = np.tanh(
                state @ params["grid"]["query"]["kernel"]
                + sources @ params["grid"]["key"]["kernel"]
            )
            weights = np.exp(inner @ params["grid"]["score"])
            read = weights / weights.sum() @ sources
            state = core_of_the_paper(params, state, read)
            logits = linear(params, "classifier", state)
            np.testing.assert_allclose(found["logits"][b, 0, t], logits, 1e-3, 1e-3)


@functools.cache
def many():
    """Places and log-probabilities of 2,000 draws."""
    model, variables = made("learnt")
    model = model.clone(samples=2000, deviation=0.3)
    run = jax.jit(functools.partial(model.apply, train=True))
    return run(variables, image(), rngs={"sample": jax.random.key(0)})


def test_the_first_place_is_anywhere_and_the_others_round_their_means():
    found = many()
    first = np.asarray(found["places"][:, :, 0]).reshape(-1)
    assert np.abs(first).max() <= 1
    counts, _ = np.histogram(first, 4, (-1, 1))
    np.testing.assert_allclose(counts / len(first), 0.25, atol=0.025)
    assert not np.any(found["log_prob"][:, :, 0])
    # the first of the others, whose state depends on the first place only
    off = np.asarray(found["log_prob"][:, :, 1]) + np.log(2 * np.pi * 0.3**2)
    # half the square of two normals has mean 1 and deviation 1
    assert -off.mean() == pytest.approx(1, abs=4 / off.size**0.5)
    random = outputs("random", train=True)
    assert set(random) == {"logits", "places"}


def test_draws_differ_and_examples_do_not_share_theirs():
    places = outputs("learnt", train=True)["places"][:, :, 0].reshape(-1, 2)
    assert len(np.unique(places, axis=0)) == len(places)


def test_what_is_rewarded_and_what_is_classified_learn_apart():
    model, variables = made("learnt")
    names = ("logits", "log_prob", "baseline", "places")

    @jax.jit
    def slopes(params):
        def outputs(params, name):
            rngs = {"sample": jax.random.key(0)}
            y = model.apply({"params": params}, image(), train=True, rngs=rngs)
            return jnp.sum(jnp.sin(y[name]))

        return {name: jax.grad(outputs)(params, name) for name in names}

    found = slopes(variables["params"])
    learns = {
        name: {key for key, layer in slope.items() if np.any(layer["kernel"])}
        for name, slope in found.items()
    }
    every = set(variables["params"])
    assert learns["log_prob"] == {"locator"}
    assert learns["baseline"] == {"baseline"}
    assert learns["logits"] == every - {"locator", "baseline"}
    assert not learns["places"]


def test_hard_attention_on_the_grid_returns_what_it_drew():
    found = outputs("hard", train=True)
    assert set(found) == {"logits", "log_prob", "entropy"}
    assert found["log_prob"].shape == found["entropy"].shape == (B, 1, 3)
    assert np.all(found["log_prob"] < 0) and np.all(found["entropy"] > 0)
    assert set(outputs("hard", train=False)) == {"logits"}


def test_the_map_of_the_grid_has_all_steps():
    model, variables = made("soft")
    y, maps = attn.capture(model, variables, image())
    (found,) = maps.values()
    assert found.kind == "token_matrix" and found.grid == (3, 3)
    assert found.values.shape == (B, 1, 3, 9)
    want = outputs("soft", train=False)["logits"]
    np.testing.assert_allclose(y["logits"], want, rtol=1e-4, atol=1e-5)
    assert np.abs(found.values[:, :, 0] - found.values[:, :, 1]).max() > 1e-3


@pytest.mark.parametrize(
    ("channels", "given", "count"),
    [
        # patch, place, two to the glimpse, two of the core, locator, baseline, classes
        (1, {}, 8320 + 384 + 66048 + 131584 + 514 + 257 + 2570),
        (1, {"size": 12, "scales": 3}, 55424 + 384 + 66048 + 131584 + 771 + 2570),
        (1, {"locations": "random"}, 8320 + 384 + 66048 + 131584 + 2570),
    ],
)
def test_has_the_parameters_of_the_sizes_of_the_paper(channels, given, count):
    model = models.create("recurrent_attention", num_classes=10, **given)
    init = functools.partial(model.init, train=False)
    x = jax.ShapeDtypeStruct((1, 60, 60, channels), jnp.float32)
    assert cost.parameters(jax.eval_shape(init, jax.random.key(0), x)) == count


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"glimpses": 0}, "'glimpses' of model .* must be a positive int, got 0"),
        ({"locations": "learned"}, "one of 'learnt', 'random'"),
        ({"slots": {"grid": "cbam"}}, "slot 'grid': cbam cannot read .*additive_soft"),
        ({"slots": {"grid": "window"}}, "slot 'grid': window cannot read other tokens"),
        ({"deviation": 0.0}, "'deviation' .* must be a positive number"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(given, says):
    with pytest.raises(settings.Invalid, match=says):
        models.create("recurrent_attention", **{**TINY, **given})


def test_a_patch_larger_than_the_image_is_refused():
    model = models.create("recurrent_attention", num_classes=3, size=6, scales=2)
    says = "reach 12x12, more than the image, 11x14"
    with pytest.raises(settings.Invalid, match=says):
        jax.eval_shape(
            functools.partial(model.init, train=False), jax.random.key(0), image()
        )

"""Networks of restoration: exact sizes, images of any size, and where slots are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models, settings
from attn.models import cost

# PAN and FFA-Net: the authors' code, counted.
EXACT = {
    "pan x2": ("pan", {"scale": 2}, 261_403),
    "pan x3": ("pan", {"scale": 3}, 261_403),
    "pan x4": ("pan", {"scale": 4}, 272_419),
}
FFA = 4_455_913


@pytest.mark.parametrize("case", list(EXACT))
def test_parameters_are_those_of_the_published_code(case):
    name, given, expected = EXACT[case]
    assert parameters(name, **given) == expected


def parameters(name, **given):
    init = functools.partial(models.create(name, **given).init, train=False)
    images = jax.ShapeDtypeStruct((1, 8, 9, 3), jnp.float32)
    return cost.parameters(jax.eval_shape(init, jax.random.key(0), images))


def test_parameters_of_san_are_those_of_the_authors_code_for_training():
    """By small networks, as the whole one takes long to trace.

    Its code declares 15,712,776 parameters that are trained at x2, of which the last
    convolution of the body, the gates beside the non-local block and the factors of
    the groups are never used.
    """
    of = functools.partial(parameters, "san", scale=2)
    one, two = (of(groups=1, depth=depth) for depth in (1, 2))
    more = of(groups=2, depth=1)
    found = one + 9 * (two - one) + 19 * (more - one + 9 * (two - one))
    assert found == 15_712_776 - 36_928 - 1_096 - 20


def test_what_san_has_more_at_other_scales_is_published():
    """At x2, x3, x4 and x8 the authors' code has 15,712,280 to 16,007,704."""
    published = {2: 15_712_280, 3: 15_896_920, 4: 15_859_992, 8: 16_007_704}
    ours = {s: parameters("san", scale=s, groups=1, depth=1) for s in published}
    for scale in (3, 4, 8):
        assert ours[scale] - ours[2] == published[scale] - published[2]


def test_blocks_of_ffa_are_those_of_the_published_code():
    """By two networks of fewer blocks, as all of them take long to trace."""
    assert models.find("ffa").depth == 19
    one, two = (parameters("ffa", depth=depth) for depth in (1, 2))
    assert one + 18 * (two - one) == FFA


def restored(model, shape, seed=0):
    image = np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(seed), image
    )
    return jax.jit(functools.partial(model.apply, train=False))(variables, image)


SMALL = {
    "edsr": {"width": 4, "depth": 1, "scale": 1},
    "san": {"width": 8, "groups": 1, "depth": 1, "scale": 8},
}


@pytest.mark.parametrize("name", list(SMALL))
def test_images_of_odd_sizes_are_enlarged_by_the_scale(name):
    scale = SMALL[name]["scale"]
    found = restored(models.create(name, **SMALL[name]), (2, 5, 7, 3))
    assert found.shape == (2, 5 * scale, 7 * scale, 3) and found.dtype == jnp.float32
    assert np.isfinite(found).all()


def test_san_refuses_images_of_which_quarters_have_nothing_to_read():
    assert restored(models.create("san", **SMALL["san"]), (1, 4, 4, 3)).size
    for size in ((1, 1), (3, 3), (9, 3)):
        with pytest.raises(
            settings.Invalid, match=rf"4 x 4, got {size[0]} x {size[1]}"
        ):
            restored(models.create("san", **SMALL["san"]), (1, *size, 3))


def test_attention_of_every_contract_fills_a_slot():
    plain = restored(models.create("edsr", **SMALL["edsr"]), (1, 6, 5, 3))
    for spec in ("squeeze_excite", {"name": "multi_head", "num_heads": 2}):
        slots = {"block0/block.residual": spec, "body.end": "pixel_attention"}
        other = restored(
            models.create("edsr", slots=slots, **SMALL["edsr"]), (1, 6, 5, 3)
        )
        assert other.shape == plain.shape and np.abs(other - plain).max() > 1e-4


def test_scales_that_a_network_is_not_made_for_are_refused():
    with pytest.raises(
        settings.Invalid, match="scale of PAN must be one of 2, 3, 4, g"
    ):
        models.create("pan", scale=8)
    with pytest.raises(settings.Invalid, match=r"scale of EDSR .* got 5"):
        models.create("edsr", scale=5)


def test_units_of_edsr_are_those_of_its_biases():
    """Its ReLUs keep their shape where all is multiplied, biases too."""
    plain = models.create("edsr", scale=2, width=8, depth=2)
    image = jax.random.uniform(jax.random.key(0), (2, 6, 9, 3))
    variables = jax.jit(lambda k: plain.init(k, image, train=False))(jax.random.key(1))
    draw = lambda path, a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape)
    variables = jax.tree.map_with_path(draw, variables)
    large = jax.tree.map_with_path(
        lambda path, a: 255 * a if path[-1].key == "bias" else a, variables
    )
    released = plain.clone(units=255.0)
    want, got, wrong = (
        jax.jit(lambda v, m=m: m.apply(v, image, train=False))(v)
        for m, v in ((plain, variables), (released, large), (plain, large))
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert np.abs(wrong - want).max() > 1


def test_sizes_that_a_network_is_not_made_for_are_refused():
    with pytest.raises(settings.Invalid, match="width of PAN must be even, got 9"):
        models.create("pan", scale=2, width=9)
    grey = jnp.ones((1, 8, 8, 1))
    with pytest.raises(settings.Invalid, match="images of 3 channels, got 1"):
        models.create("ffa", width=16, groups=1, depth=1).init(
            jax.random.key(0), grey, train=False
        )


@pytest.mark.parametrize(
    ("name", "given", "steps"),
    [
        ("pan", {"scale": 2, "width": 24}, {"width": 6, "enlarged_width": 3}),
        ("ffa", {"width": 48}, {"width": 48}),
    ],
)
def test_widths_have_room_for_the_heads_in_slots(name, given, steps):
    fill = {"block.residual": {"name": "multi_head", "num_heads": 3}}
    model = models.create(name, slots=fill, **given)
    found = {name: width.step for name, width in model.width_settings().items()}
    assert found == steps

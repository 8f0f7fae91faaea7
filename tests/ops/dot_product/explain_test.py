"""What is said about the choice of an implementation, and that it is what happens."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops
from attn.ops import dot_product
from attn.ops.dot_product import dispatch

SHAPE = jax.ShapeDtypeStruct((2, 300, 4, 8), jnp.float32)


def explain(shape=SHAPE, **options):
    return ops.explain(shape, shape, shape, **options)


def test_every_implementation_is_explained():
    found = explain()
    assert (found.platform, found.implementation) == ("cpu", "blockwise")
    assert {found.implementation, *found.others} == set(dot_product.IMPLEMENTATIONS)
    assert found.others["reference"] == "comes after blockwise"
    assert found.others["xla"] == "only by its name on cpu"
    assert found.others["cudnn"] == "cudnn needs a GPU, not a cpu"
    assert str(found).startswith("blockwise runs on cpu\n  300 x 300 blocks")
    for name, why in found.others.items():
        assert f"\nnot {name}: {why}" in str(found)


def test_nothing_to_attend_with_is_explained():
    empty = jax.ShapeDtypeStruct((2, 0, 4, 8), jnp.float32)
    found = ops.explain(SHAPE, empty, empty)
    assert found.implementation == "reference"
    assert found.others["blockwise"].startswith("blockwise needs examples, targets and")


def test_numbers_of_numpy_are_settings():
    options = {"scale": 1 / np.sqrt(8), "window": np.int64(5)}
    found = explain(**options, logits_cap=np.float32(5))
    assert found.implementation == "blockwise"


# What is asked, which implementation runs, and what is said of another.
SAID = [
    ({"normalize": "sparsemax"}, "reference", ("blockwise", "needs whole rows")),
    ({"return_weights": True}, "reference", ("xla", "return the weights; reference")),
    ({"implementation": "xla"}, "xla", ("blockwise", "xla was named")),
    ({"implementation": "pallas_tpu", "dropout_rate": 0.0}, "pallas_tpu", ()),
    (
        {"implementation": "xla", "logits_cap": 2.0},
        None,
        ("xla", "xla cannot cap logits; blockwise and reference can"),
    ),
    (
        {"bias": jax.ShapeDtypeStruct((300, 300), jnp.float32)},
        "blockwise",
        ("pallas_tpu", "takes no array as a bias"),
    ),
]


@pytest.mark.parametrize(("options", "runs", "said"), SAID)
def test_says_who_runs_and_why_not_another(options, runs, said):
    found = explain(**options)
    assert found.implementation == runs
    if said:
        assert said[1] in found.others[said[0]]


@pytest.mark.parametrize("options", [{}, {"implementation": "xla"}])
def test_the_one_said_is_the_one_that_runs(options, monkeypatch):
    said, ran = explain(**options).implementation, []
    fused = dispatch.fused_attention
    record = lambda inputs, asked, name: (ran.append(name), fused(inputs, asked, name))
    monkeypatch.setattr(dispatch, "fused_attention", lambda *x: record(*x)[1])
    run = lambda x: ops.dot_product_attention(x, x, x, **options)
    jax.eval_shape(run, SHAPE)
    assert ran == [said]


def test_within_plain_the_reference_runs():
    with ops.plain():
        found = explain()
    assert found.implementation == "reference"
    assert "plain" in found.others["blockwise"]


def test_how_much_a_mask_function_leaves():
    rows = np.arange(1024)[None] // 128
    shape = jax.ShapeDtypeStruct((1, 1024, 2, 8), jnp.float32)
    assert explain(shape, mask_mod=ops.masks.documents(rows)).visited == 1 / 8
    assert explain(shape).visited is None
    unknown = jax.ShapeDtypeStruct((1,), jnp.int32)
    assert (
        explain(shape, mask_mod=ops.masks.causal(), kv_lengths=unknown).visited is None
    )


def test_what_does_not_fit_is_said_as_by_attention():
    with pytest.raises(ValueError, match=r"None or one of reference, .* got 'fast'"):
        explain(implementation="fast")
    with pytest.raises(ValueError, match="mask must be boolean"):
        explain(mask=SHAPE)
    with pytest.raises(
        ValueError, match=r"unknown option 'casual' \(valid: bias, mask"
    ):
        explain(casual=True)


def test_a_scale_that_is_learnt_is_refused_with_what_to_do():
    q = jnp.ones((1, 2, 1, 4))
    run = jax.jit(lambda scale: ops.dot_product_attention(q, q, q, scale=scale))
    with pytest.raises(ValueError, match="multiply the queries by one that is learnt"):
        run(2.0)


@pytest.fixture
def on_gpu(monkeypatch):
    """As if the kernel of a GPU came first, which cannot run here."""
    monkeypatch.setitem(dispatch.ORDER, "cpu", dispatch.ORDER["gpu"])
    dispatch._tell.cache_clear()


def test_a_fall_from_a_kernel_is_told_once_in_the_same_words(on_gpu):
    zeros = jnp.zeros((1, 4, 1, 8))
    why = explain().others["cudnn"]
    with pytest.warns(RuntimeWarning, match=f"without a fused kernel: {why}"):
        ops.dot_product_attention(zeros, zeros, zeros)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.dot_product_attention(zeros, zeros, zeros)


def test_what_is_named_never_falls(on_gpu):
    zeros = jnp.zeros((1, 4, 1, 8))
    for name in ("cudnn", "blockwise"):
        with pytest.raises(NotImplementedError, match=name):
            ops.dot_product_attention(
                zeros, zeros, zeros, implementation=name, return_weights=True
            )

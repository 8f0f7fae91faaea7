"""The blocks themselves: memory, what is skipped, sizes, and transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import dot_product
from attn.ops.dot_product import blocks, blockwise, problem, tiles
from attn.ops.dot_product.blocks import Plan


def attend(*arrays, **options):
    return dot_product.dot_product_attention(
        *arrays, implementation="blockwise", **options
    )


def temporary_bytes(length, **options):
    """Of the values and all gradients of two heads."""
    shape = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
    bias = jax.ShapeDtypeStruct((2, 1, length), jnp.float32)

    def run(q, k, v, bias, dy):
        y, back = jax.vjp(
            lambda *x: attend(*x[:3], bias=x[3], **options), q, k, v, bias
        )
        return y, back(dy)

    compiled = jax.jit(run).lower(shape, shape, shape, bias, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_as_the_length_forward_and_backward():
    options = {"is_causal": True, "dropout_rate": 0.1}
    options["dropout_rng"] = jax.random.key(0)
    short, long = (temporary_bytes(n, **options) for n in (4096, 16384))
    assert long < 4.2 * short
    assert long < 16384**2 / 8, "a bit for each pair would be more"


SIZES = [
    (4, 3, 0, None),
    (3, 5, 2, 1),
    (5, 2, None, 0),
    (4, 4, 7, 0),
    (2, 6, None, None),
]


@pytest.mark.parametrize(("here", "there", "left", "right"), SIZES)
def test_a_block_visits_those_blocks_that_it_sees(here, there, left, right):
    count = 4
    far = 10**6
    for block in range(5):
        seen = {
            s // there
            for t in range(block * here, (block + 1) * here)
            for s in range(count * there)
            if -(far if left is None else left) <= s - t
            and s - t <= (far if right is None else right)
        }
        first, last = tiles.span(jnp.asarray(block), here, there, count, left, right)
        assert set(range(int(first), int(last))) == seen


@pytest.mark.parametrize(
    ("options", "clean"),
    [
        ({"window": (8, 0)}, lambda t: (t < 32) | (t >= 48)),
        ({"is_causal": True}, lambda t: t < 32),
        ({"kv_lengths": np.array([32])}, lambda t: t >= 0),
    ],
)
def test_what_is_hidden_is_not_visited(options, clean):
    # A NaN among the values spoils every target whose loop comes by, seen or not.
    q, k, v = (jnp.ones((1, 64, 1, 4)) for _ in range(3))
    v = v.at[0, 35].set(jnp.nan)
    plan = Plan(8, 8, loop=True, wide=True)
    settings = dict.fromkeys(
        ["bias", "mask", "scale", "window", "q_lengths", "kv_lengths", "logits_cap"]
    )
    settings |= {"is_causal": False, "dropout_rate": 0.0, "dropout_rng": None}
    settings |= {"return_weights": False, "normalize": "softmax"}
    inputs, asked = problem.check(q, k, v, **settings | options)

    y = blockwise.attend(inputs, asked, plan)

    spoilt = np.isnan(np.asarray(y[0, :, 0, 0]))
    assert not np.any(spoilt & clean(np.arange(64)))
    assert np.any(spoilt) == ("kv_lengths" not in options)


def test_blocks_cover_any_length_evenly():
    for length in (1, 7, 197, 512, 513, 1025, 16384, 5000):
        for longest in (128, 512):
            size = blocks.even(length, longest)
            count = -(-length // size)
            assert size <= longest + blocks.ROUND
            assert count == -(-length // longest)
            assert count * size - length < count * blocks.ROUND


@pytest.mark.parametrize(
    ("sizes", "together"),
    [
        ((32, 197, 3), 2),
        ((560, 49, 3), 35),
        ((90, 197, 1), 6),
        ((17, 197, 3), 1),  # two would fit, but do not divide seventeen
        ((8, 577, 12), 1),  # one is more than it should be, but not by far
        ((2, 900, 6), 0),
    ],
)
def test_so_many_examples_go_at_once_that_their_scores_stay_small(sizes, together):
    batch, length, heads = sizes
    x = jax.ShapeDtypeStruct((batch, length, heads, 16), jnp.float32)
    found = dot_product.explain(x, x, x)
    assert found.plan.examples == together
    assert found.plan.loop
    said = f"197 x 197 blocks, heads of {together} examples at once"
    assert (said in str(found)) == (length == 197)


@pytest.mark.parametrize("sizes", [(35, 49, 3), (11, 197, 3), (8, 20, 3)])
def test_there_is_no_loop_where_all_scores_are_few(sizes):
    batch, length, heads = sizes
    x = jax.ShapeDtypeStruct((batch, length, heads, 16), jnp.float32)
    found = dot_product.explain(x, x, x)
    assert not found.plan.loop
    assert found.plan.examples == 0


@pytest.mark.parametrize("examples", [1, 6])
def test_is_exported_for_any_number_of_examples(examples):
    (batch,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 40, 3, 8), jnp.float32)
    program = jax.export.export(jax.jit(lambda x: attend(x, x, x)))(shape)
    x = np.random.default_rng(0).normal(size=(examples, 40, 3, 8)).astype(np.float32)
    np.testing.assert_allclose(
        program.call(x), jax.jit(attend)(x, x, x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("examples", [1, 2, 3])
def test_what_an_example_reads_does_not_depend_on_those_beside_it(examples):
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    q, k, v = normal(6, 9, 4, 5), normal(6, 11, 2, 5), normal(6, 11, 2, 3)
    bias, dy, slopes = normal(6, 1, 9, 11), normal(6, 9, 4, 3), normal(6)

    def run(plan, shared):
        def read(q, k, v, bias, slopes):
            inputs, asked = problem.check(
                q,
                k,
                v,
                bias=bias,
                mask=np.arange(44).reshape(4, 1, 11) % 5 > 0,
                kv_lengths=np.array([11, 4, 9, 1, 10, 7]),
                dropout_rate=0.3,
                dropout_rng=jax.random.key(1),
                mask_mod=lambda b, n, t, s: (s + b + n) % 4 > 0,
                score_mod=lambda x, b, n, t, s: x + slopes[b] * (t - s),
            )
            return blockwise.attend(inputs, asked, plan)

        y, back = jax.vjp(read, q, k, v, bias[:1] if shared else bias, slopes)
        return y, back(dy)

    for shared in (False, True):
        each, some = (
            jax.jit(run, static_argnums=(0, 1))(Plan(9, 11, True, True, count), shared)
            for count in (0, examples)
        )
        for x, y in zip(jax.tree.leaves(each), jax.tree.leaves(some), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_works_under_vmap_and_again_differentiated_forward():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(3, 2, 40, 2, 4)).astype(np.float32) for _ in range(3))

    def curvature(name):
        def loss(q, k, v):
            y = dot_product.dot_product_attention(
                q, k, v, implementation=name, is_causal=True
            )
            return jnp.sum(jnp.sin(y))

        def product(q, k, v):
            slope = lambda q: jax.grad(loss)(q, k, v)
            return jax.jvp(slope, (q,), (jnp.cos(q),))[1]

        return jax.jit(jax.vmap(product))(q, k, v)

    np.testing.assert_allclose(
        curvature("blockwise"), curvature("reference"), rtol=1e-4, atol=1e-5
    )


def test_large_logits_do_not_overflow():
    rng = np.random.default_rng(0)
    q, k, v = (1e4 * rng.normal(size=(1, 70, 1, 4)).astype(np.float32) for _ in "qkv")
    run = jax.jit(jax.value_and_grad(lambda *x: jnp.sum(attend(*x)), (0, 1, 2)))
    value, grads = run(q, k, v)
    assert np.isfinite(value)
    for grad in grads:
        assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("window", [(3, None), (None, 3), 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lengths_and_windows_in_double_precision(monkeypatch, window, dtype):
    monkeypatch.setattr(blocks, "table", lambda *case: blocks.Limits(8, 8))
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        q, k, v = (jnp.asarray(rng.normal(size=(1, 20, 1, 2)), dtype) for _ in "qkv")
        options = {"window": window, "kv_lengths": np.array([17], np.int32)}
        found, expected = (
            dot_product.dot_product_attention(q, k, v, implementation=name, **options)
            for name in ("blockwise", "reference")
        )
        np.testing.assert_allclose(found, expected, atol=2e-6)

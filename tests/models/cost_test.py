"""Costs against counts by hand, and against XLA's own where it counts the same."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from attn import ops
from attn.models import cost


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


X, W = shaped(5, 3), shaped(3, 3)  # one product: 5 * 3 * 3 = 45


@jax.custom_vjp
def product(x, w):
    return x @ w


product.defvjp(
    lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g)
)


@jax.custom_jvp
def square(x):
    return x @ x


square.defjvp(lambda x, t: (x[0] @ x[0], t[0]))


def test_parameters_are_the_params_collection_only():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False)(nn.Dense(7)(x))
            return nn.Dense(2, use_bias=False)(x)

    variables = jax.eval_shape(Net().init, jax.random.key(0), shaped(4, 3))

    assert "batch_stats" in variables
    assert cost.parameters(variables) == 3 * 7 + 7 + 2 * 7 + 7 * 2
    assert cost.parameters({}) == 0


@pytest.mark.parametrize(
    ("spec", "shapes", "want"),
    [
        ("ij,jk->ik", [(5, 3), (3, 7)], 5 * 3 * 7),
        ("i,i->", [(5,), (5,)], 5),
        ("btnd,bsnd->bnts", [(2, 3, 5, 7), (2, 11, 5, 7)], 2 * 3 * 5 * 7 * 11),
        ("abij,ij->ab", [(2, 3, 5, 7), (5, 7)], 2 * 3 * 5 * 7),
    ],
)
def test_products_by_hand(spec, shapes, want):
    product = functools.partial(jnp.einsum, spec)
    assert cost.macs(product, *(shaped(*shape) for shape in shapes)) == want


@pytest.mark.parametrize(
    ("x", "kernel", "settings", "want"),
    [
        ((2, 8, 10, 3), (3, 3, 3, 4), {}, 2 * 8 * 10 * 4 * 27),  # padding counts
        ((2, 8, 10, 3), (3, 5, 3, 4), {"padding": "VALID"}, 2 * 6 * 6 * 4 * 45),
        ((1, 9, 10, 3), (3, 3, 3, 4), {"window_strides": (2, 1)}, 5 * 10 * 4 * 27),
        ((1, 8, 9, 6), (3, 3, 2, 9), {"feature_group_count": 3}, 72 * 9 * 18),
        ((1, 8, 9, 6), (3, 3, 1, 6), {"feature_group_count": 6}, 72 * 6 * 9),
        (
            (1, 8, 9, 2),
            (3, 3, 2, 4),
            {"rhs_dilation": (2, 3), "padding": "VALID"},
            4 * 3 * 4 * 18,
        ),
        # A transposed convolution: each pixel times the whole kernel, 4 x 2 here.
        (
            (1, 5, 6, 3),
            (4, 2, 3, 7),
            {"lhs_dilation": (2, 2), "padding": ((2, 2), (1, 1))},
            5 * 6 * 8 * 3 * 7,
        ),
        # Its first and last pixel miss one row of the kernel: 3 * 5 - 2 pairs.
        (
            (1, 5, 4, 3),
            (3, 1, 3, 7),
            {"lhs_dilation": (2, 1), "padding": ((1, 1), (0, 0))},
            13 * 4 * 3 * 7,
        ),
        # batch_group_count: each output feature sees one of the two examples.
        ((2, 8, 9, 3), (3, 3, 3, 4), {"batch_group_count": 2}, 72 * 4 * 27),
    ],
)
def test_convolutions_by_hand(x, kernel, settings, want):
    settings = {"window_strides": (1, 1), "padding": "SAME"} | settings
    conv = functools.partial(
        lax.conv_general_dilated,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **settings,
    )
    assert cost.macs(conv, shaped(*x), shaped(*kernel)) == want


def test_other_axis_orders_count_the_same():
    conv = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 2),
        padding="SAME",
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    assert cost.macs(conv, shaped(2, 3, 8, 10), shaped(4, 3, 3, 5)) == (
        2 * 4 * 8 * 5 * 3 * 15
    )


def test_a_strided_convolution_costs_as_much_in_each_gradient():
    def conv(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=numbers
        )
        return jnp.sum(y**2)

    inputs = shaped(2, 8, 12, 3), shaped(3, 3, 3, 5)
    forward = cost.macs(conv, *inputs)
    assert forward == 2 * 4 * 6 * 5 * 27
    assert cost.macs(jax.grad(conv, argnums=(0, 1)), *inputs) == 3 * forward


def test_equals_xla_where_there_is_no_padding():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            valid = {"padding": "VALID", "use_bias": False}
            x = nn.Conv(8, (3, 2), strides=(2, 1), **valid)(x)
            x = nn.Conv(8, (3, 3), feature_group_count=4, kernel_dilation=2, **valid)(x)
            x = nn.Conv(6, (1, 1), **valid)(x)
            return nn.Dense(5, use_bias=False)(x.reshape(len(x), -1))

    x = shaped(2, 15, 9, 3)
    variables = jax.eval_shape(Net().init, jax.random.key(0), x)
    flops = jax.jit(Net().apply).lower(variables, x).compile().cost_analysis()["flops"]
    assert 2 * cost.macs(Net().apply, variables, x) == flops


def repeat(x, w):
    return lax.scan(lambda x, _: (jax.jit(jnp.dot)(x, w), None), x, length=7)[0]


def choose(x, w):
    return lax.switch(0, [lambda: x, lambda: x @ w, lambda: x @ w @ w])


def loop(x, w):
    return lax.fori_loop(0, 4, lambda _, x: x @ w, x)


@pytest.mark.parametrize(
    ("function", "want"),
    [
        (jax.jit(jnp.dot), 45),
        (jax.checkpoint(jnp.dot), 45),
        (product, 45),
        (lambda x, w: square(w), 27),
        (jax.vmap(jnp.dot, in_axes=(0, None)), 45),
        (repeat, 7 * 45),
        (loop, 4 * 45),
        (choose, 2 * 45),
        (lambda x, w: jnp.sort(x) + jax.nn.softmax(x), 0),
        (jax.grad(lambda x, w: product(x, w).sum(), argnums=(0, 1)), 3 * 45),
        (jax.grad(lambda x, w: repeat(x, w).sum(), argnums=(0, 1)), 3 * 7 * 45),
    ],
)
def test_products_inside_other_functions(function, want):
    assert cost.macs(function, X, W) == want


def test_remat_pays_for_its_second_forward():
    f = lambda x, w: jnp.sum(jnp.sin(jnp.sin(x @ w) @ w))
    plain = cost.macs(jax.grad(f), X, W)
    assert plain == 2 * 45 + 2 * 45  # forward, and the gradient of x only
    assert cost.macs(jax.grad(jax.checkpoint(f)), X, W) == plain + 2 * 45


def test_a_while_loop_is_refused_only_if_it_multiplies():
    counting = lambda x, w: lax.while_loop(
        lambda x: x[0, 0] < 5, lambda x: x + 1, x @ w
    )
    assert cost.macs(counting, X, W) == 45
    loop = lambda x, w: lax.while_loop(lambda x: x[0, 0] < 5, lambda x: x @ w, x)
    with pytest.raises(ValueError, match="each step takes 45 multiply-adds"):
        cost.macs(loop, X, W)


def test_a_ragged_product_is_refused():
    sizes = jax.ShapeDtypeStruct((2,), jnp.int32)
    with pytest.raises(ValueError, match="ragged"):
        cost.macs(lax.ragged_dot, X, shaped(2, 3, 4), sizes)


def test_all_devices_count_under_pmap_and_shard_map():
    devices = jax.device_count()
    assert devices > 1
    mapped = jax.pmap(jnp.dot, in_axes=(0, None))
    assert cost.macs(mapped, shaped(devices, 5, 3), W) == devices * 45
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    split = PartitionSpec("data")
    mapped = jax.shard_map(
        jnp.dot, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split
    )
    assert cost.macs(mapped, shaped(devices * 5, 3), W) == devices * 45


def test_a_pallas_kernel_counts_once_a_program():
    def kernel(x, w, y):
        y[...] = x[...] @ w[...]

    call = pl.pallas_call(
        kernel,
        out_shape=shaped(8, 16),
        grid=(4,),
        in_specs=[
            pl.BlockSpec((2, 8), lambda i: (i, 0)),
            pl.BlockSpec((8, 16), lambda i: (0, 0)),
        ],
        out_specs=pl.BlockSpec((2, 16), lambda i: (i, 0)),
    )
    assert cost.macs(call, shaped(8, 8), shaped(8, 16)) == 8 * 8 * 16


def test_a_linear_solve_does_not_pay_for_products_it_does_not_make():
    assert cost.macs(jnp.linalg.solve, shaped(3, 3), shaped(3, 2)) == 0


def test_arguments_that_are_no_arrays_are_passed_as_they_are():
    def function(tree, name, *, train, mask=None):
        assert name == "w" and mask is None
        return tree["x"] @ tree[name] if train else tree["x"]

    tree = {"x": X, "w": np.ones((3, 3), np.float32)}
    assert cost.macs(function, tree, "w", train=True) == 45
    assert cost.macs(function, tree, "w", train=False) == 0


def test_peak_bytes_counts_a_donated_argument_once():
    x = shaped(64, 64)
    size = 4 * math.prod(x.shape)
    add = lambda x: x + 1
    assert cost.peak_bytes(jax.jit(add).lower(x).compile()) == 2 * size
    donated = jax.jit(add, donate_argnums=0).lower(x).compile()
    assert cost.peak_bytes(donated) == size

    sort = jax.jit(lambda x: jnp.sum(jnp.sort(x @ x))).lower(x).compile()
    assert cost.peak_bytes(sort) >= 2 * size + 4  # the argument, x @ x, and the sum


def test_peak_bytes_is_none_where_the_backend_does_not_tell():
    class Silent:
        def memory_analysis(self):
            return None

    class Unable:
        def memory_analysis(self):
            raise NotImplementedError

    assert cost.peak_bytes(Silent()) is None
    assert cost.peak_bytes(Unable()) is None


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window": 3}])
def test_attention_counts_as_its_formula_on_every_implementation(
    implementation, options
):
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    q, k, v = shape(2, 577, 6, 8), shape(2, 600, 3, 8), shape(2, 600, 3, 16)
    attend = lambda *qkv: ops.dot_product_attention(
        *qkv, implementation=implementation, **options
    )
    assert cost.macs(attend, q, k, v) == 2 * 6 * 577 * 600 * (8 + 16)

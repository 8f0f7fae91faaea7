"""What a network costs: parameters, multiply-adds, and memory.

Multiply-adds (MACs) are the quantity that papers print, mostly as "FLOPs": those of
convolutions and matrix products, and of nothing else. They are counted from the
jaxpr, so that what is counted is what runs, whatever the network is made of.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import numpy as np

from attn import settings


def parameters(variables: Any) -> int:
    """Number of entries of the "params" collection of `variables`.

    Batch statistics and other collections do not count, as in the published numbers.
    The leaves may be abstract, as `jax.eval_shape` makes them.
    """
    return sum(math.prod(a.shape) for a in jax.tree.leaves(variables.get("params", {})))


def macs(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Multiply-adds of every matrix product and convolution in function(*args).

    Nothing is computed: arrays among the arguments (at any depth) may be
    `jax.ShapeDtypeStruct`. Everything else, such as `train=False`, is passed as it is.

    Counted as published numbers are: a convolution multiplies its padding too, but
    not the zeros between the pixels of a transposed one; groups, strides and dilation
    are exact. Products inside jit, remat, custom derivatives and the like count where
    they are called, those of `lax.scan` once a step, of `lax.cond` those of its
    largest branch, of `shard_map` and `pmap` those of all devices together, of a
    Pallas kernel once a program of its grid. Products whose result is not used count.
    Factorisations and triangular solves do not. Attention by a fused implementation
    of `attn.ops.dot_product_attention` counts as its formula does, B N T S (D + Dv),
    whatever its blocks fill up or skip; so the count is the same on every platform.

    Raises:
        Invalid: a product in a `while` loop, whose number of steps is not known,
            or a ragged one, whose sizes are not.
    """
    is_array = lambda leaf: hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    leaves, tree = jax.tree.flatten((args, kwargs))

    def call(arrays):
        arrays = iter(arrays)
        filled = [next(arrays) if is_array(leaf) else leaf for leaf in leaves]
        args, kwargs = jax.tree.unflatten(tree, filled)
        return function(*args, **kwargs)

    return _count(jax.make_jaxpr(call)([leaf for leaf in leaves if is_array(leaf)]))


def peak_bytes(compiled: Any) -> int | None:
    """Bytes a compiled function needs at once: arguments, results and temporaries.

    Args:
        compiled: what `jax.jit(f).lower(...).compile()` returns.

    Returns:
        XLA's own sum for one device, in which a donated argument and the result that
        takes its place are counted once; None where the backend does not tell.
    """
    try:
        memory = compiled.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if memory is None:
        return None
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _count(jaxpr: Any) -> int:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # a closed one holds an open one
    return sum(
        COUNTERS.get(equation.primitive.name, _called_once)(equation)
        for equation in jaxpr.eqns
    )


def _called_once(equation: Any) -> int:
    """jit, remat, custom derivatives, ...; 0 for a primitive without a jaxpr."""
    return sum(map(_count, jax.extend.core.jaxprs_in_params(equation.params)))


def _jit(equation: Any) -> int:
    if equation.params["name"] == "fused_convolution":
        kernel = equation.invars[1].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(kernel[:3])
    if equation.params["name"] == "fused_doubling":
        x, kernel = (variable.aval.shape for variable in equation.invars)
        return math.prod(x[:3]) * math.prod(kernel)
    if equation.params["name"] != "fused_attention":
        return _called_once(equation)
    q, k, v = (variable.aval.shape for variable in equation.invars[:3])
    return math.prod(q[:3]) * k[1] * (q[3] + v[3])


def _dot_general(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(
        left[axis] for axis in contracted
    )


def _conv_general_dilated(equation: Any) -> int:
    params = equation.params
    kernel = equation.invars[1].aval.shape
    output = equation.outvars[0].aval.shape
    _, inputs, *kernel_axes = params["dimension_numbers"].rhs_spec
    batch, features, *output_axes = params["dimension_numbers"].out_spec
    total = output[batch] * output[features] * kernel[inputs]
    for axis in range(len(kernel_axes)):
        total *= _taps(
            output[output_axes[axis]],
            kernel[kernel_axes[axis]],
            stride=params["window_strides"][axis],
            before=params["padding"][axis][0],
            spacing=params["lhs_dilation"][axis],
            dilation=params["rhs_dilation"][axis],
        )
    return total


def _taps(
    outputs: int, kernel: int, *, stride: int, before: int, spacing: int, dilation: int
) -> int:
    """Pairs of output and kernel position, on one axis, that meet no inserted zero."""
    if spacing == 1:
        return outputs * kernel
    start = np.arange(outputs)[:, None] * stride - before
    meets = start + np.arange(kernel)[None] * dilation
    return int(np.count_nonzero(meets % spacing == 0))


def _scan(equation: Any) -> int:
    return equation.params["length"] * _count(equation.params["jaxpr"])


def _cond(equation: Any) -> int:
    return max(map(_count, equation.params["branches"]))


def _while(equation: Any) -> int:
    step = _called_once(equation)
    if step:
        raise settings.Invalid(
            f"cannot count a while loop: each step takes {step} multiply-adds, but the"
            " number of steps is only known when it runs; use lax.scan, or"
            " lax.fori_loop with bounds that are Python integers"
        )
    return 0


def _shard_map(equation: Any) -> int:
    sizes = dict(equation.params["mesh"].shape)
    axes = equation.params.get("newly_manual_axes", sizes)
    return math.prod(sizes[axis] for axis in axes) * _called_once(equation)


def _pallas_call(equation: Any) -> int:
    return math.prod(equation.params["grid_mapping"].grid) * _called_once(equation)


def _custom_linear_solve(equation: Any) -> int:
    return _count(equation.params["jaxprs"].solve)  # its products with A are not run


def _ragged_dot_general(equation: Any) -> int:
    raise settings.Invalid(
        "cannot count a ragged product (lax.ragged_dot): the sizes of its groups are"
        f" only known when it runs, got {equation.invars[0].aval}"
    )


COUNTERS: dict[str, Callable[[Any], int]] = {
    "cond": _cond,
    "conv_general_dilated": _conv_general_dilated,
    "custom_linear_solve": _custom_linear_solve,
    "dot_general": _dot_general,
    "jit": _jit,
    "pallas_call": _pallas_call,
    "ragged_dot_general": _ragged_dot_general,
    "scan": _scan,
    "shard_map": _shard_map,
    "while": _while,
}

"""A model run with its attentions tapped: their inputs, outputs and gradients.

Nothing in a module has to know of it. Flax lets a function stand around every call of
a module (`flax.linen.intercept_methods`); this one notes what goes in and out where
attention was recorded, and adds zeros to the output, whose gradient is that of the
output.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from attn.modules import Map, capture
from attn.modules.capture import STATISTICS

Target = jax.Array | Callable[[Any], jax.Array] | None


class Tap(flax.struct.PyTreeNode):
    """One attention in a model, at one call.

    Attributes:
        module: its class.
        maps: what it recorded, by the name of the record, such as "token_matrix".
        queries: its first input.
        sources: its second input, `kv`, or `queries` where there is none.
        output: what it made of them.
        gradient: of the chosen logit by the output; None where none was asked for.
    """

    module: type[nn.Module] = flax.struct.field(pytree_node=False)
    maps: dict[str, Map]
    queries: jax.Array
    sources: jax.Array
    output: jax.Array
    gradient: jax.Array | None = None


def run(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    target: Target = None,
    *,
    gradients: bool,
) -> tuple[Any, dict[str, Tap]]:
    """Applies a model without training, and returns what its attentions did.

    Args:
        model: any network, or a bare mechanism.
        variables: of the model.
        images: [B, H, W, C], or what else the model takes.
        target: whose gradient, see `chosen`.
        gradients: whether to take it.

    Returns:
        The outputs, and the taps by the path of the module.
    """
    images = jnp.asarray(images)
    rngs = _rngs(model)
    _, found = jax.eval_shape(
        lambda v, x: capture(model, v, x, rngs=rngs), variables, images
    )
    found = {name: one for name, one in found.items() if one.kind not in STATISTICS}
    paths = {name.rpartition("/")[0] for name in found}

    def forward(added: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
        calls: dict[str, _Call] = {}
        with nn.intercept_methods(_interceptor(paths, added, calls)):
            outputs, maps = capture(model, variables, images, rngs=rngs)
        arrays = {path: call.arrays for path, call in calls.items()}
        modules.update({path: call.module for path, call in calls.items()})
        scores = chosen(outputs, target).sum() if gradients else jnp.zeros(())
        return scores, (outputs, maps, arrays)

    modules: dict[str, type[nn.Module]] = {}
    if gradients:
        shapes = jax.eval_shape(lambda: forward({})[1][2])
        zeros = {
            path: jnp.zeros(arrays["output"].shape, arrays["output"].dtype)
            for path, arrays in shapes.items()
        }
        slope, (outputs, maps, arrays) = jax.grad(forward, has_aux=True)(zeros)
    else:
        slope = {}
        _, (outputs, maps, arrays) = forward({})
    taps = {}
    for path, module in modules.items():
        inside = {
            name.rpartition("/")[2]: entry
            for name, entry in maps.items()
            if name.rpartition("/")[0] == path and name in found
        }
        taps[path] = Tap(module, inside, **arrays[path], gradient=slope.get(path))
    return outputs, taps


def apply(model: nn.Module, variables: Any, images: jax.Array) -> Any:
    """The outputs of a model without training; what it draws is always the same."""
    return model.apply(variables, images, train=False, rngs=_rngs(model))


def _rngs(model: nn.Module) -> dict[str, jax.Array]:
    names = getattr(model, "streams", ())
    return dict(
        zip(
            names, jax.random.split(jax.random.key(0), max(1, len(names))), strict=False
        )
    )


def chosen(outputs: Any, target: Target = None) -> jax.Array:
    """The logit of each example that is explained, [B].

    Args:
        outputs: of the model. Logits [B, K], or [B, n, K] for several classifiers,
            whose chosen logits are added; several arrays, as DeiT has them, are
            averaged first.
        target: classes, int [B] or [B, n]; None for the highest logits; or a function
            from the outputs to [B], for a model that does something else.

    Raises:
        ValueError: outputs that are no logits, or as `of_classes` says.
    """
    if callable(target):
        return target(outputs)
    logits = mean_logits(outputs)
    if target is None:
        target = jnp.argmax(logits, axis=-1)
    return of_classes(logits, target).reshape(len(logits), -1).sum(axis=-1)


def of_classes(values: jax.Array, target: Any) -> jax.Array:
    """The values [B, K] or [B, n, K] of some classes, int [B] or [B, n].

    Raises:
        ValueError: classes of another shape, or outside of 0 ... K - 1 where their
            values are known, as they are not where `jax.jit` traces them.
    """
    picked = jnp.asarray(target)
    if picked.shape != values.shape[:-1]:
        raise ValueError(
            f"targets of shape {list(picked.shape)} do not fit logits of shape"
            f" {list(values.shape)}"
        )
    count = values.shape[-1]
    if not isinstance(picked, jax.core.Tracer):
        numbers = np.asarray(picked)
        wrong = numbers[(numbers < 0) | (numbers >= count)]
        if wrong.size:
            raise ValueError(f"targets must be in 0..{count - 1}, got {int(wrong[0])}")
    return jnp.take_along_axis(values, picked[..., None], axis=-1)[..., 0]


def mean_logits(outputs: Any) -> jax.Array:
    """Logits [B, K] or [B, n, K] of a model with one array of them, or several alike.

    Raises:
        ValueError: no arrays, arrays of unlike shapes, or other numbers of axes.
    """
    leaves = jax.tree.leaves(outputs)
    shapes = {leaf.shape for leaf in leaves}
    if len(shapes) != 1 or leaves[0].ndim not in (2, 3):
        raise ValueError(
            "the outputs are no logits: give a function from the outputs to one number"
            f" an example as the target, got arrays of {sorted(map(list, shapes))}"
        )
    return sum(leaves) / len(leaves)


@dataclasses.dataclass(frozen=True)
class _Call:
    module: type[nn.Module]
    arrays: dict[str, jax.Array]


def _interceptor(paths, added, calls) -> Callable:
    """Notes calls of the modules at `paths` in `calls`, and adds to their outputs."""

    def around(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(y, jax.Array):
            return y
        path = "/".join(context.module.path)
        if path not in paths:
            return y
        y = y + added[path] if path in added else y
        sources = kwargs.get("kv", args[1] if len(args) > 1 else None)
        inputs = {"queries": args[0], "sources": args[0]}
        if sources is not None:
            inputs["sources"] = sources
        calls[path] = _Call(type(context.module), inputs | {"output": y})
        return y

    return around

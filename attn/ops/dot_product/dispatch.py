"""Which implementation runs, and why each of the others does not."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Iterator

import jax

from attn.ops.dot_product import (
    blockwise,
    jax_nn,
    pallas_tpu,
    problem,
    reference,
    skips,
    tokamax,
    visible,
)
from attn.ops.dot_product.blocks import Plan
from attn.ops.dot_product.problem import Asked, Inputs
from attn.ops.programs import is_plain

IMPLEMENTATIONS = {
    "reference": reference.attend,
    "blockwise": blockwise.attend,
    "xla": jax_nn.xla,
    "cudnn": jax_nn.cudnn,
    "pallas_tpu": pallas_tpu.attend,
    "tokamax": tokamax.attend,
}
# What None tries, the fastest first, by platform.
ORDER = {
    "cpu": ("blockwise", "reference"),
    "gpu": ("cudnn", "blockwise", "reference"),
    "tpu": ("pallas_tpu", "blockwise", "reference"),
}
# The options that are arrays, or None.
ARRAYS = ("bias", "mask", "q_lengths", "kv_lengths", "sinks", "dropout_rng")
KERNELS = ("cudnn", "pallas_tpu")  # from which it is told that another one runs


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` found; as text, one line for each implementation.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        implementation: which one runs; None if the one that was named cannot.
        others: why each of the others does not, by name.
        plan: the lengths of blocks and what goes at once, where we choose them.
        visited: share of the blocks in which mask_mod allows anything; None without
            it, or if that is known only in the run.
    """

    platform: str
    implementation: str | None
    others: dict[str, str]
    plan: Plan | None = None
    visited: float | None = None

    def __str__(self) -> str:
        lines = [f"{self.implementation or 'nothing'} runs on {self.platform}"]
        if self.plan is not None:
            heads = "one after another" if self.plan.loop else "all at once"
            if self.plan.examples:
                heads = f"of {self.plan.examples} examples at once"
            lines.append(f"  {self.plan.q} x {self.plan.k} blocks, heads {heads}")
        if self.visited is not None:
            lines.append(f"  mask_mod leaves {self.visited:.1%} of the blocks")
        lines += [f"not {name}: {why}" for name, why in self.others.items()]
        return "\n".join(lines)


def attend(inputs: Inputs, asked: Asked, implementation: str | None):
    """The read values, and the weights where the implementation has them.

    Raises:
        NotImplementedError: the implementation that was named cannot do this.
    """
    for name in candidates(inputs, asked, implementation)[0]:
        try:
            made = run(inputs, asked, name)
        except NotImplementedError as error:
            refused = error
            if name in KERNELS and implementation is None:
                _tell(f"attention runs without a fused kernel: {error}")
            continue
        return made if isinstance(made, tuple) else (made, None)
    raise refused


def candidates(
    inputs: Inputs, asked: Asked, implementation: str | None
) -> tuple[tuple[str, ...], str]:
    """The names to be tried in turn, and why no others are."""
    platform = jax.default_backend()
    if implementation is not None:
        return (implementation,), f"{implementation} was named"
    if asked.return_weights:
        return ("reference",), "only reference has the weights"
    if is_plain():
        return ("reference",), "within attn.ops.plain() only reference runs"
    if 0 in inputs.q.shape + inputs.k.shape:
        return ("reference",), "there are no examples, targets or sources"
    return ORDER.get(platform, ORDER["cpu"]), f"only by its name on {platform}"


def run(inputs: Inputs, asked: Asked, name: str):
    """What one implementation makes of it.

    Raises:
        NotImplementedError: it cannot do this.
    """
    if name == "reference":
        return reference.attend(inputs, asked)
    if 0 in inputs.q.shape + inputs.k.shape:
        raise NotImplementedError(
            f"{name} needs examples, targets and sources; reference does without"
        )
    return fused_attention(inputs, asked, name)


@functools.partial(jax.jit, static_argnums=(1, 2))
def fused_attention(inputs, asked, name):
    """A jaxpr shows one call of this name, from whose shapes the cost can be told."""
    return IMPLEMENTATIONS[name](inputs, asked)


@functools.cache
def _tell(text: str) -> None:
    """Warns once in a process."""
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def explain(
    q: jax.Array | jax.ShapeDtypeStruct,
    k: jax.Array | jax.ShapeDtypeStruct,
    v: jax.Array | jax.ShapeDtypeStruct,
    *,
    implementation: str | None = None,
    **options,
) -> Explanation:
    """Which implementation `dot_product_attention` takes here, with which blocks.

    Nothing is computed, so shapes (`jax.ShapeDtypeStruct`) do. Print what comes back.

    Args:
        q: queries [B, T, N, D].
        k: keys [B, S, K, D].
        v: values [B, S, K, Dv].
        implementation: as there; `implementation` of what is returned is None if the
            one named here cannot do what is asked.
        **options: as there.

    Raises:
        ValueError: something does not fit.
    """
    check_name(implementation)
    known = [*inspect.signature(problem.check).parameters][len("qkv") :]
    for name in options:
        if name not in known:
            raise ValueError(f"unknown option {name!r} (valid: {', '.join(known)})")
    fixed = {name: x for name, x in options.items() if name not in ARRAYS}
    traced = {name: options[name] for name in options if name not in fixed}
    found = []

    def look(q, k, v, traced):
        inputs, asked = problem.check(q, k, v, **fixed, **traced)
        inputs, _ = visible.hide(inputs, asked)
        found.append(_explain(inputs, asked, implementation))

    jax.eval_shape(look, q, k, v, traced)
    return found[0]


def _explain(inputs: Inputs, asked: Asked, implementation: str | None) -> Explanation:
    names, why = candidates(inputs, asked, implementation)
    others, chosen = {}, None
    for name, refusal in _tried(inputs, asked, names):
        if refusal is None and chosen is None and name in names:
            chosen = name
            continue
        later = f"comes after {chosen}" if name in names else why
        others[name] = refusal or later
    made = Explanation(jax.default_backend(), chosen, others)
    if chosen != "blockwise":
        return made
    plan = blockwise.plan_for(inputs, asked)
    visited = None
    if inputs.seen is not None and not isinstance(inputs.seen, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            sizes = inputs.q.shape[1], inputs.k.shape[1]
            visited = float(skips.of_blocks(inputs.seen, sizes, plan).mean())
    return dataclasses.replace(made, plan=plan, visited=visited)


def _tried(
    inputs: Inputs, asked: Asked, names: tuple[str, ...]
) -> Iterator[tuple[str, str | None]]:
    """All names, those of `names` first, and why each cannot do this, if so."""
    for name in dict.fromkeys((*names, *IMPLEMENTATIONS)):
        try:
            run(inputs, asked, name)
        except NotImplementedError as error:
            yield name, str(error)
        else:
            yield name, None


def check_name(implementation: str | None) -> None:
    """Raises ValueError for the name of no implementation."""
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be None or one of {', '.join(IMPLEMENTATIONS)}, got"
            f" {implementation!r}"
        )

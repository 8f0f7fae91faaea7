"""Masks and scores as functions of a place, traced once and made block by block.

A function sees scalars, as in FlexAttention (Dong et al., "Flex Attention: A
Programming Model for Generating Optimized Attention Kernels", 2024,
https://arxiv.org/abs/2412.05496), whose names these are. What it captures, such as
numbers of documents or a table of biases, becomes arguments, so that it may be traced
or differentiated itself.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from attn.ops import varying

MaskMod = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
ScoreMod = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
PLACE = 4  # arguments that say where: b, n, t, s


@dataclasses.dataclass(frozen=True, eq=False)
class Mod:
    """A traced function without what it captured, which its calls are given.

    Two are equal if their programs read the same, with what these hold and how they are
    differentiated, so that a function that is made anew for each call is compiled once.
    """

    jaxpr: core.Jaxpr
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mod) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __call__(self, captured: tuple, *args: jax.Array) -> jax.Array:
        """Its value for one place."""
        if varying.axes((captured, args)):
            return _evaluate(self.jaxpr, captured, args)[0]
        program = core.ClosedJaxpr(self.jaxpr, list(captured))
        (value,) = core.jaxpr_as_fun(program)(*args)
        return value

    def uses(self) -> tuple[bool, ...]:
        """Which of b, n, t, s its value may depend on."""
        return tuple(_reaches(self.jaxpr, x) for x in self.jaxpr.invars[-PLACE:])

    def over(
        self,
        captured: tuple,
        *scores: jax.Array,
        b: jax.Array | int,
        n: jax.Array | int,
        t: jax.Array,
        s: jax.Array,
    ) -> jax.Array:
        """Its values [k, q] for sources [k] and targets [q] of one head.

        Args:
            captured: what the function captured.
            *scores: the scores [k, q], for a function of them.
            b: the example.
            n: the head.
            t: positions of targets.
            s: positions of sources.
        """

        def one(t, s, *score):
            return self(captured, *score, jnp.int32(b), jnp.int32(n), t, s)

        there = (0,) * len(scores)
        row = jax.vmap(one, (0, None, *there))
        t, s = (x.astype(jnp.int32) for x in (t, s))
        return jax.vmap(row, (None, 0, *there))(t, s, *scores)

    def matrix(self, captured: tuple, *scores: jax.Array, sizes: tuple) -> jax.Array:
        """Its values [B, N, T, S], all in memory; of a mask any axis may be 1.

        Args:
            captured: what the function captured.
            *scores: the scores [B, N, T, S], for a function of them.
            sizes: (B, N, T, S).
        """
        used = (True,) * PLACE if scores else self.uses()
        places = [
            jnp.arange(size if use else 1, dtype=jnp.int32)
            for size, use in zip(sizes, used, strict=True)
        ]
        run = lambda *args: self(captured, *args[PLACE:], *args[:PLACE])
        for axis in reversed(range(PLACE)):
            where = [0 if a == axis else None for a in range(PLACE)]
            run = jax.vmap(run, (*where, *(0,) * len(scores)))
        return run(*places, *scores)


def trace_mask(function: MaskMod) -> tuple[Mod, tuple]:
    """The traced mask_mod, and what it captured.

    Raises:
        ValueError: it does not return one boolean.
    """
    mod, captured, got = _trace(function)
    if got.shape or got.dtype != jnp.bool_:
        raise ValueError(
            "mask_mod(b, n, t, s) must return one boolean (True = may attend), got"
            f" {got.str_short()}"
        )
    return mod, captured


def trace_score(function: ScoreMod, dtype: jnp.dtype) -> tuple[Mod, tuple]:
    """The traced score_mod, of scores of `dtype`, and what it captured.

    Raises:
        ValueError: it does not return one number that `dtype` can hold.
    """
    score = jax.ShapeDtypeStruct((), dtype)
    mod, captured, got = _trace(function, score)
    if got.shape or got.dtype != dtype:
        raise ValueError(
            "score_mod(score, b, n, t, s) must return one number of the score's type,"
            f" {score.dtype.name}, got {got.str_short()}"
        )
    return mod, captured


def _trace(function: Callable, *scores: jax.ShapeDtypeStruct):
    """The traced function, what it captured, and what it returns."""
    place = [jax.ShapeDtypeStruct((), jnp.int32)] * PLACE
    scalar = lambda *args: jnp.asarray(function(*args))
    closed = jax.make_jaxpr(scalar)(*scores, *place)
    (got,) = closed.out_avals
    shapes = [x.str_short() for x in closed.in_avals]
    captured = tuple(jnp.asarray(x) for x in closed.consts)
    kinds = [jax.typeof(x).str_short() for x in captured]
    text = f"{kinds} {shapes} {_text(closed.jaxpr)}"
    if scores and "custom_" in text:
        text += _text(_differentiated(closed))
    return Mod(closed.jaxpr, text), captured, got


def _text(jaxpr: core.Jaxpr) -> str:
    """A program with the constants of programs in it, which JAX does not print."""
    return f"{jaxpr} {[_told(x) for x in _constants(jaxpr)]}"


def _constants(jaxpr: core.Jaxpr) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        for inner in jax.tree.leaves(list(eqn.params.values())):
            if isinstance(inner, core.ClosedJaxpr):
                yield from inner.consts
                inner = inner.jaxpr
            if isinstance(inner, core.Jaxpr):
                yield from _constants(inner)


def _told(x: Any) -> str:
    """What tells a constant from others; it lives as long as its program."""
    if isinstance(x, jax.core.Tracer) or jax.dtypes.issubdtype(
        jnp.result_type(x), jax.dtypes.extended
    ):
        return str(id(x))
    digest = hashlib.blake2b(np.asarray(x).tobytes()).hexdigest()
    return f"{jax.typeof(x).str_short()} {digest}"


def _differentiated(closed: core.ClosedJaxpr) -> core.Jaxpr:
    """The gradients of a program, in which rules of its own are written out."""

    def gradients(captured: tuple, *args: jax.Array):
        def run(real: list) -> jax.Array:
            merged = iter(real)
            values = [next(merged) if _is_real(x) else x for x in (*captured, *args)]
            inputs = values[: len(captured)], values[len(captured) :]
            (value,) = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, inputs[0]))(
                *inputs[1]
            )
            return value

        return jax.grad(run)([x for x in (*captured, *args) if _is_real(x)])

    # by shapes alone, as what is captured may differ between devices
    shapes = [
        jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in closed.consts
    ]
    return jax.make_jaxpr(gradients)(tuple(shapes), *closed.in_avals).jaxpr


def _is_real(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _evaluate(jaxpr: core.Jaxpr, captured: tuple, args: tuple) -> list:
    """The values of a program, arguments of each step differing along the same axes.

    The program was traced before what it captured was made to differ.

    Raises:
        NotImplementedError: it has derivatives of its own, whose programs do not.
    """
    values = dict(zip(jaxpr.constvars, captured, strict=True))
    values |= zip(jaxpr.invars, args, strict=True)
    read = lambda x: x.val if isinstance(x, core.Literal) else values[x]
    for eqn in jaxpr.eqns:
        given = varying.together([read(x) for x in eqn.invars])
        if eqn.primitive.name == "jit":
            inner = eqn.params["jaxpr"]
            made = _evaluate(inner.jaxpr, inner.consts, given)
        elif eqn.primitive.name in ("pcast", "pvary"):
            made = given
        elif eqn.primitive.name == "cond":
            branches = [functools.partial(_branch, b) for b in eqn.params["branches"]]
            made = lax.switch(given[0], branches, *given[1:])
        elif eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call"):
            raise NotImplementedError(
                "within jax.shard_map a mask_mod or score_mod cannot call functions"
                " with derivatives of their own, such as jax.nn.relu: write them out,"
                " as jnp.maximum(x, 0), or give shard_map check_vma=False"
            )
        else:
            made = eqn.primitive.bind(*given, **eqn.params)
        made = made if isinstance(made, tuple | list) else [made]
        values |= zip(eqn.outvars, made, strict=True)
    return [read(x) for x in jaxpr.outvars]


def _branch(program: core.ClosedJaxpr, *args: jax.Array) -> list:
    """The values of one branch, which differ along the same axes in each."""
    made = _evaluate(program.jaxpr, program.consts, args)
    return [varying.like(jnp.asarray(x), args) for x in made]


def _reaches(jaxpr: core.Jaxpr, start: core.Var) -> bool:
    """Whether the value of `jaxpr` may depend on one of its arguments."""
    found = {start}
    for eqn in jaxpr.eqns:
        if any(not isinstance(x, core.Literal) and x in found for x in eqn.invars):
            found.update(eqn.outvars)
    return any(not isinstance(x, core.Literal) and x in found for x in jaxpr.outvars)


def split(captured: tuple) -> tuple[tuple, tuple]:
    """What has gradients and what has none, each with None in the other's places."""
    real = [_is_real(x) for x in captured]
    return tuple(
        tuple(x if r is keep else None for x, r in zip(captured, real, strict=True))
        for keep in (True, False)
    )


def merge(learnt: tuple, fixed: tuple) -> tuple:
    """What `split` split."""
    return tuple(f if x is None else x for x, f in zip(learnt, fixed, strict=True))

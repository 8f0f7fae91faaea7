"""Optimizers and learning-rate schedules by name: thin settings over optax.

Everything is counted in steps, which are batches: warm-ups, boundaries and the length
of a training. Where the gradients of several batches are accumulated for one update,
an update has the rate of the first of its batches, so that a training that
accumulates two batches, with twice the numbers, goes as one on their joint batches
where its losses are means over examples: each batch counts alike, whatever it has of
what else they are divided by, such as words or objects.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from attn import settings


@dataclasses.dataclass(frozen=True)
class Constant:
    """The peak rate throughout, after `warmup` linear steps."""

    peak: settings.PositiveFloat
    warmup: settings.Count = 0

    def rate(self, steps: int, accumulate: int) -> optax.Schedule:
        """The rate by the number of the step, of `steps`, counted from 0.

        Args:
            steps: of the training.
            accumulate: how many of them make one update.
        """
        rate = self.after_warmup(steps - self.warmup)
        if not self.warmup:
            return rate
        first = self.peak * min(1, accumulate / self.warmup)
        rise = optax.linear_schedule(first, self.peak, self.warmup)
        return optax.join_schedules([rise, rate], [self.warmup])

    def after_warmup(self, steps: int) -> optax.Schedule:
        """The rate by the number of the step after the warm-up, of `steps`."""
        del steps
        return optax.constant_schedule(self.peak)


@dataclasses.dataclass(frozen=True)
class Cosine(Constant):
    """Half a cosine from the peak to `final` (Loshchilov, Hutter, arXiv 1608.03983)."""

    final: settings.NotNegative = 0.0

    def after_warmup(self, steps: int) -> optax.Schedule:
        """The rate by the number of the step after the warm-up, of `steps`."""
        return optax.cosine_decay_schedule(self.peak, steps, self.final / self.peak)


@dataclasses.dataclass(frozen=True)
class InverseSqrt(Constant):
    """A line to the peak at step `warmup`, and then its share sqrt(warmup / step).

    Steps count from 1. With the peak (width * warmup)^-0.5 it is equation 3 of Vaswani
    et al. 2017 (https://arxiv.org/abs/1706.03762), width^-0.5 min(step^-0.5, step *
    warmup^-1.5): 6.99e-4 for 512 and 4000.
    """

    warmup: settings.Positive = 4000

    def rate(self, steps: int, accumulate: int) -> optax.Schedule:
        """The rate by the number of the step, see `Constant`."""
        del steps

        def rate(step: Any) -> Any:
            share = (step + accumulate) / self.warmup
            return self.peak * jnp.minimum(share, share**-0.5)

        return rate


@dataclasses.dataclass(frozen=True)
class Linear(Constant):
    """A line from the peak to `final`."""

    final: settings.NotNegative = 0.0

    def after_warmup(self, steps: int) -> optax.Schedule:
        """The rate by the number of the step after the warm-up, of `steps`."""
        return optax.linear_schedule(self.peak, self.final, steps)


@dataclasses.dataclass(frozen=True)
class Step(Constant):
    """The peak, times `factor` at each of `boundaries` (steps since the start).

    The step that a boundary names, counted from 0, is the first with the new rate.
    """

    boundaries: tuple[settings.Positive, ...] = ()
    factor: Annotated[float, settings.Range("in (0, 1]", 0, 1, open="low")] = 0.1

    def __post_init__(self):
        rising = all(a < b for a, b in itertools.pairwise(self.boundaries))
        if not rising or min(self.boundaries, default=self.warmup) < self.warmup:
            raise settings.Invalid(
                "boundaries must rise, none before the end of the warm-up at"
                f" {self.warmup}, got {list(self.boundaries)}"
            )

    def after_warmup(self, steps: int) -> optax.Schedule:
        """The rate by the number of the step after the warm-up, of `steps`."""
        del steps
        drops = {step - self.warmup: self.factor for step in self.boundaries}
        return optax.piecewise_constant_schedule(self.peak, drops)


SCHEDULES = {
    "constant": Constant,
    "cosine": Cosine,
    "inverse_sqrt": InverseSqrt,
    "linear": Linear,
    "step": Step,
}


# Words that end the names of parameters which are no weights, with a number or without,
# and the module that holds the parameters of a position encoding.
SPARED = re.compile(
    r"(.*/)?position(/.*)?|(.*[/_])?(bias|scale|token|table|temperature)\d*"
)


@dataclasses.dataclass(frozen=True)
class _Optimizer:
    """What every optimizer can do besides its own rule.

    Attributes:
        weight_decay: for sgd and adam the L2 penalty added to the gradient, for the
            others decoupled from it (Loshchilov, Hutter, arXiv 1711.05101).
        decay: which parameters it touches. "kernels" leaves out what the releases of
            ViT, DeiT, CaiT, XCiT, Swin and CPVT leave out: biases of whatever shape,
            those of query, key and value included; scales of norms and LayerScale;
            class and distillation tokens; position embeddings, tables of relative
            positions, and all that stands in a module called "position"; and
            temperatures, which only XCiT's release decays. It goes by the last word
            of a parameter's name, as in "bias_table" and "scale1"; and what has one
            dimension is left out by any name.
        clip: the norm to which the whole gradient of an update is clipped, if any.
        rates: factors of the learning rate for parts of the network, by name: that of
            a module, {"input": 0.1}, or of one inside another, {"stage1/block0": 0.5};
            an attention in a slot bears the slot's name. They hold for every
            parameter on whose path the name stands, decoupled weight decay included;
            0 keeps it as it is, and its gradient counts for nothing, not for `clip`
            either. Where several names do, the one of most parts counts, and of these
            the first: {"backbone": 0.1, "backbone/stage1": 0}.
    """

    weight_decay: settings.NotNegative = 0.0
    decay: Literal["kernels", "all"] = "kernels"
    clip: settings.PositiveFloat | None = None
    rates: Mapping[str, settings.NotNegative] | None = None

    def paced(self) -> optax.GradientTransformation:
        """Multiplies the updates by `rates`; an update is the rate times something."""

        def scale(path: Any, update: jax.Array) -> jax.Array:
            factor = self._factor(path)
            return update if factor is None else update * factor

        return _on_each(scale)

    def held(self) -> optax.GradientTransformation:
        """Leaves out the gradients of what `rates` keeps as it is.

        They are zeros that depend on nothing, so that a compiled step does not go back
        to them.
        """
        return _on_each(
            lambda path, grad: jnp.zeros_like(grad) if self._factor(path) == 0 else grad
        )

    def _factor(self, path: Any) -> float | None:
        """What `rates` has for a parameter, None where it has nothing."""
        name, rates = _name(path), self.rates or {}
        parts = [part for part in rates if _stands_on(part, name)]
        return rates[max(parts, key=lambda part: part.count("/"))] if parts else None

    def mask(self, params: Any) -> Any:
        """Which parameters the weight decay touches, as a tree of booleans."""

        def touched(path: Any, param: jax.Array) -> bool:
            weight = param.ndim > 1 and not SPARED.fullmatch(_name(path))
            return self.decay == "all" or weight

        return jax.tree.map_with_path(touched, params)

    def penalty(self) -> optax.GradientTransformation:
        """Adds the L2 penalty to the gradient."""
        return optax.add_decayed_weights(self.weight_decay, self.mask)


@dataclasses.dataclass(frozen=True)
class Sgd(_Optimizer):
    """Stochastic gradient descent with momentum."""

    momentum: settings.Decay = 0.9
    nesterov: bool = False

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of gradients into updates."""
        sgd = optax.sgd(rate, momentum=self.momentum or None, nesterov=self.nesterov)
        return optax.chain(self.penalty(), sgd)


@dataclasses.dataclass(frozen=True)
class Adam(_Optimizer):
    """Kingma, Ba, arXiv 1412.6980."""

    b1: settings.Decay = 0.9
    b2: settings.Decay = 0.999
    eps: settings.PositiveFloat = 1e-8

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of gradients into updates."""
        return optax.chain(self.penalty(), optax.adam(rate, self.b1, self.b2, self.eps))


@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: Loshchilov, Hutter, arXiv 1711.05101."""

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of gradients into updates."""
        return optax.adamw(
            rate,
            self.b1,
            self.b2,
            self.eps,
            weight_decay=self.weight_decay,
            mask=self.mask,
        )


@dataclasses.dataclass(frozen=True)
class Lamb(Adam):
    """Layer-wise adaptive Adam: You et al., arXiv 1904.00962."""

    eps: settings.PositiveFloat = 1e-6

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of gradients into updates."""
        return optax.lamb(
            rate,
            self.b1,
            self.b2,
            self.eps,
            weight_decay=self.weight_decay,
            mask=self.mask,
        )


@dataclasses.dataclass(frozen=True)
class Lion(_Optimizer):
    """Sign of a momentum: Chen et al., arXiv 2302.06675."""

    b1: settings.Decay = 0.9
    b2: settings.Decay = 0.99

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of gradients into updates."""
        return optax.lion(
            rate, self.b1, self.b2, weight_decay=self.weight_decay, mask=self.mask
        )


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "lamb": Lamb, "lion": Lion, "sgd": Sgd}


def _on_each(
    change: Callable[[Any, jax.Array], jax.Array],
) -> optax.GradientTransformation:
    """Changes each array by its path."""
    return optax.stateless(
        lambda updates, params: jax.tree.map_with_path(change, updates)
    )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _stands_on(part: str, name: str) -> bool:
    return f"/{part}/" in f"/{name}/"


def _named(table: Mapping[str, Any], kind: str, config: Mapping[str, Any]) -> Any:
    options = dict(config)
    name = options.pop("name", None)
    return settings.build(settings.choose(table, kind, name), kind, name, options)


def schedule(
    config: Mapping[str, Any], steps: int, *, accumulate: int = 1
) -> optax.Schedule:
    """The learning rate by the number of the update, over `steps` steps.

    Args:
        config: the name and its settings.
        steps: of the training, in batches, as everything in `config`.
        accumulate: batches whose gradients make one update.

    Raises:
        Invalid: unknown name or setting, a warm-up that does not end before the
            training does, or fewer steps than one update takes.
    """
    if accumulate > steps:
        raise settings.Invalid(
            f"there are {steps} steps, and accumulate={accumulate} takes more of them"
            " to make one update"
        )
    rule = _named(SCHEDULES, "schedule", config)
    if rule.warmup >= steps:
        message = f"warmup must lie in 0..{steps - 1} steps, got {rule.warmup}"
        raise settings.Invalid(message)
    rate = rule.rate(steps, accumulate)
    return lambda update: rate(update * accumulate)


def create(
    config: Mapping[str, Any],
    rate: optax.Schedule,
    *,
    accumulate: int = 1,
    held: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Builds the optimizer that `config["name"]` names.

    Args:
        config: the name and its settings.
        rate: the learning rate of each update, from `schedule`.
        accumulate: batches whose gradients are averaged into one update.
        held: names of parts that stay as they are, as if `rates` had 0 for them.

    Raises:
        Invalid: unknown name or setting; the message names the valid ones.
    """
    chosen = _named(OPTIMIZERS, "optimizer", config)
    if held:
        rates = {**(chosen.rates or {}), **dict.fromkeys(held, 0.0)}
        chosen = dataclasses.replace(chosen, rates=rates)
    rule = chosen.rule(rate)
    if chosen.rates:
        rule = optax.chain(rule, chosen.paced())
    if chosen.clip is not None:
        rule = optax.chain(optax.clip_by_global_norm(chosen.clip), rule)
    if 0 in (chosen.rates or {}).values():
        rule = optax.chain(chosen.held(), rule)
    if accumulate > 1:
        rule = optax.MultiSteps(rule, every_k_schedule=accumulate)
    return rule


def has_updated(state: optax.OptState) -> Any:
    """Whether the last gradient completed an update, from the optimizer's state."""
    accumulates = isinstance(state, optax.MultiStepsState)
    return state.mini_step == 0 if accumulates else True


def check(config: Mapping[str, Any], params: Any) -> None:
    """Checks that every name in `config["rates"]` is that of a part of the network.

    Raises:
        Invalid: a name on no parameter's path, with the nearest that is.
    """
    names = [_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    parts = dict.fromkeys(part for name in names for part in name.split("/"))
    for part in config.get("rates") or {}:
        if not any(_stands_on(part, name) for name in names):
            raise settings.unknown("part in rates", part, parts)

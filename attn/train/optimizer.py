"""Optimizers and learning-rate schedules by name: thin settings over optax."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import optax

from attn import settings


@dataclasses.dataclass(frozen=True)
class Constant:
    """The peak rate throughout, after `warmup` linear steps."""

    peak: float
    warmup: int = 0

    def after_warmup(self, steps: int) -> optax.Schedule:
        del steps
        return optax.constant_schedule(self.peak)


@dataclasses.dataclass(frozen=True)
class Cosine(Constant):
    """Half a cosine from the peak to `final` (Loshchilov, Hutter, arXiv 1608.03983)."""

    final: float = 0.0

    def after_warmup(self, steps: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(self.peak, steps, self.final / self.peak)


@dataclasses.dataclass(frozen=True)
class Linear(Constant):
    """A line from the peak to `final`."""

    final: float = 0.0

    def after_warmup(self, steps: int) -> optax.Schedule:
        return optax.linear_schedule(self.peak, self.final, steps)


@dataclasses.dataclass(frozen=True)
class Step(Constant):
    """The peak, times `factor` at each of `boundaries` (steps since the start)."""

    boundaries: tuple[int, ...] = ()
    factor: float = 0.1

    def after_warmup(self, steps: int) -> optax.Schedule:
        del steps
        drops = {step - self.warmup: self.factor for step in self.boundaries}
        return optax.piecewise_constant_schedule(self.peak, drops)


SCHEDULES = {"constant": Constant, "cosine": Cosine, "linear": Linear, "step": Step}


@dataclasses.dataclass(frozen=True)
class _Optimizer:
    """What every optimizer can do besides its own rule.

    Attributes:
        weight_decay: for sgd and adam the L2 penalty added to the gradient, for the
            others decoupled from it (Loshchilov, Hutter, arXiv 1711.05101).
        decay: which parameters it touches; "kernels" are those of two or more
            dimensions, which leaves out biases and the scales of norms.
        clip: the norm to which the whole gradient is clipped, if any.
        rates: factors of the learning rate for parts of the network, by name: that of
            a module, {"input": 0.1}, or of one inside another, {"stage1/block0": 0.5};
            an attention in a slot bears the slot's name. They hold for every
            parameter on whose path the name stands, decoupled weight decay included;
            0 keeps it as it is. Where several names do, the first counts.
    """

    weight_decay: float = 0.0
    decay: Literal["kernels", "all"] = "kernels"
    clip: float | None = None
    rates: Mapping[str, float] | None = None

    def __post_init__(self):
        for name, factor in (self.rates or {}).items():
            if isinstance(factor, bool) or not isinstance(factor, int | float):
                raise ValueError(f"rates.{name} must be a number, got {factor!r}")
            if not 0 <= factor < math.inf:
                raise ValueError(f"rates.{name} must be 0 or more, got {factor}")

    def paced(self) -> optax.GradientTransformation:
        """Multiplies the updates by `rates`; an update is the rate times something."""
        rates = self.rates or {}

        def scale(path: Any, update: jax.Array) -> jax.Array:
            name = _name(path)
            factors = [rates[part] for part in rates if _stands_on(part, name)]
            return update * factors[0] if factors else update

        return optax.stateless(
            lambda updates, params: jax.tree.map_with_path(scale, updates)
        )

    def mask(self, params: Any) -> Any:
        return jax.tree.map(lambda p: self.decay == "all" or p.ndim > 1, params)

    def penalty(self) -> optax.GradientTransformation:
        return optax.add_decayed_weights(self.weight_decay, self.mask)


@dataclasses.dataclass(frozen=True)
class Sgd(_Optimizer):
    """Stochastic gradient descent with momentum."""

    momentum: float = 0.9
    nesterov: bool = False

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        sgd = optax.sgd(rate, momentum=self.momentum or None, nesterov=self.nesterov)
        return optax.chain(self.penalty(), sgd)


@dataclasses.dataclass(frozen=True)
class Adam(_Optimizer):
    """Kingma, Ba, arXiv 1412.6980."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.chain(self.penalty(), optax.adam(rate, self.b1, self.b2, self.eps))


@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: Loshchilov, Hutter, arXiv 1711.05101."""

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
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

    eps: float = 1e-6

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
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

    b1: float = 0.9
    b2: float = 0.99

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.lion(
            rate, self.b1, self.b2, weight_decay=self.weight_decay, mask=self.mask
        )


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "lamb": Lamb, "lion": Lion, "sgd": Sgd}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _stands_on(part: str, name: str) -> bool:
    return f"/{part}/" in f"/{name}/"


def _named(table: Mapping[str, Any], kind: str, config: Mapping[str, Any]) -> Any:
    options = dict(config)
    name = options.pop("name")
    return settings.build(settings.choose(table, kind, name), kind, name, options)


def schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, over `steps` steps.

    Raises:
        ValueError: unknown name or setting, a peak that is not positive, or a warm-up
            that does not end before the training does.
    """
    rule = _named(SCHEDULES, "schedule", config)
    if rule.peak <= 0:
        raise ValueError(f"peak must be positive, got {rule.peak}")
    if not 0 <= rule.warmup < steps:
        raise ValueError(f"warmup must lie in 0..{steps - 1} steps, got {rule.warmup}")
    if not rule.warmup:
        return rule.after_warmup(steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(rule.peak / rule.warmup, rule.peak, rule.warmup),
            rule.after_warmup(steps - rule.warmup),
        ],
        [rule.warmup],
    )


def create(
    config: Mapping[str, Any], rate: optax.Schedule, *, accumulate: int = 1
) -> optax.GradientTransformation:
    """Builds the optimizer that `config["name"]` names.

    Args:
        config: the name and its settings.
        rate: the learning rate of each update, from `schedule`.
        accumulate: batches whose gradients are averaged into one update.

    Raises:
        ValueError: unknown name or setting; the message names the valid ones.
    """
    chosen = _named(OPTIMIZERS, "optimizer", config)
    rule = chosen.rule(rate)
    if chosen.rates:
        rule = optax.chain(rule, chosen.paced())
    if chosen.clip is not None:
        rule = optax.chain(optax.clip_by_global_norm(chosen.clip), rule)
    if accumulate > 1:
        rule = optax.MultiSteps(rule, every_k_schedule=accumulate)
    return rule


def check(config: Mapping[str, Any], params: Any) -> None:
    """Checks that every name in `config["rates"]` is that of a part of the network.

    Raises:
        ValueError: a name on no parameter's path, with the nearest that is.
    """
    names = [_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    parts = dict.fromkeys(part for name in names for part in name.split("/"))
    for part in config.get("rates") or {}:
        if not any(_stands_on(part, name) for name in names):
            raise settings.unknown("part in rates", part, parts)

"""Which points of a sweep train in one program, side by side.

Neighbours in a sweep that differ in the seed, or in data of equal shapes, share one
compiled step, so they can take their steps together: each on a device of its own
("devices"), or all in one step on one device ("vmap"). Either way a point gives what
it gives alone on one device, to rounding.

The rule of "auto", which considers a single machine only and at models of up to SMALL
parameters: "devices" where an accelerator has two devices or more; "vmap" on one
accelerator for models that are made of matrix products, such as transformers, as the
convolutions of several networks at once are grouped ones, which are slow. On a CPU
points train one after the other. `python -m benchmarks.together` is the measure. On
two cores vmap took 0.94 to 0.97 of the points' steps alone for a perceptron and a ViT,
0.68 for a convolutional network and 0.14 for a ResNet; two devices of the CPU gained
for the ViT only, and less than splitting its batch over them does. What it says of
accelerators is not measured yet.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import jax
import jax.extend.core

from attn import settings
from attn.data import Dataset
from attn.train.partition import Mode
from attn.train.program import Program
from attn.train.run import Run
from attn.train.sweep.experiment_file import Point

Parallel = Literal["auto", "off", "devices", "vmap"]
SMALL = 10_000_000  # parameters


@dataclasses.dataclass(frozen=True)
class Group:
    """Points that train together.

    Attributes:
        points: one or more.
        program: that trains them.
        datasets: of the points, in their order.
        mode: how they share the program; None for a point alone.
    """

    points: list[Point]
    program: Program
    datasets: list[Dataset]
    mode: Mode | None

    def runs(self, directory: pathlib.Path) -> list[Run]:
        """The points for a `loop.Training`, each in its folder of `directory`."""
        return [
            Run(point.config, directory / point.name, point.axes, dataset)
            for point, dataset in zip(self.points, self.datasets, strict=True)
        ]

    @property
    def name(self) -> str:
        """The point's, or what is common to all: "cnn-r (3 seeds together)"."""
        if len(self.points) == 1:
            return self.points[0].name
        first = self.points[0].axes
        same = {a for a in first if all(p.axes[a] == first[a] for p in self.points)}
        kind = "seeds" if first.keys() - same == {"seed"} else "points"
        common = "-".join(str(value) for axis, value in first.items() if axis in same)
        return f"{common} ({len(self.points)} {kind} together)".lstrip()


def programs(points: Sequence[Point]) -> Iterator[tuple[Point, Program]]:
    """Each point with the program that trains it alone.

    Neighbours that differ in the seed share one, those that differ in the data too
    share what is compiled.
    """
    before: dict[str, Any] = {}
    program: Program | None = None
    for point in points:
        config = {**point.config, "seed": 0}
        if program is None or {**config, "data": 0} != {**before, "data": 0}:
            program = Program(config)
        elif config != before:
            program = program.with_data(config)
        before = config
        yield point, program


def check(parallel: str) -> None:
    """Raises settings.Invalid for a name that is none, or for several machines."""
    if parallel not in get_args(Parallel):
        raise settings.unknown("parallel mode", parallel, get_args(Parallel))
    if parallel in get_args(Mode) and jax.process_count() > 1:
        raise settings.Invalid(
            f"parallel={parallel!r} works on a single machine, and there are"
            f" {jax.process_count()} (valid: auto, off)"
        )


def groups(points: Sequence[Point], parallel: Parallel = "auto") -> Iterator[Group]:
    """Cuts points, in their order, into groups that train together.

    Args:
        points: those to train.
        parallel: "off" for each alone; "devices" or "vmap" for so wherever neighbours
            share a program; "auto" for what the rule above says.

    Raises:
        Invalid: as `check` says, or a point that cannot be built.
    """
    check(parallel)
    alike = lambda pair: (pair[1].train_step, _sizes(pair[1].dataset))
    for _, found in itertools.groupby(programs(points), alike):
        pairs = list(found)
        mode = _mode(pairs[0][1], len(pairs), parallel)
        program = None
        if mode:
            program = Program(pairs[0][0].config, mode=mode)
        for part in _cut(pairs, program.partition.most if program else 1):
            alone = program is None or len(part) == 1
            yield Group(
                points=[point for point, _ in part],
                program=part[0][1] if alone else program,
                datasets=[program.dataset for _, program in part],
                mode=None if alone else mode,
            )


def _sizes(dataset: Dataset) -> tuple[int, ...]:
    return tuple(dataset.size(split) for split in dataset.splits)


def _cut(pairs: list[Any], most: int) -> Iterator[list[Any]]:
    """As few parts as can be of at most so many, as equal as can be."""
    parts = -(-len(pairs) // most)
    for i in range(parts):
        yield pairs[i * len(pairs) // parts : (i + 1) * len(pairs) // parts]


def _mode(program: Program, points: int, parallel: str) -> Mode | None:
    if points < 2 or parallel == "off":
        return None
    if parallel == "devices" or parallel == "vmap":
        return parallel
    if jax.process_count() > 1 or program.costs["parameters"] > SMALL:
        return None
    if jax.default_backend() == "cpu":
        return None
    if jax.local_device_count() > 1:
        return "devices"
    return "vmap" if made_of_products(program) else None


def made_of_products(program: Program) -> bool:
    """Whether the model has no convolution, but for the cutting of patches."""
    variables = program.abstract_state().variables()
    traced = jax.make_jaxpr(program.apply)(variables, program.example())
    return all(_cuts_patches(equation) for equation in _convolutions(traced.jaxpr))


def _convolutions(jaxpr: Any) -> Iterator[Any]:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # a closed one holds an open one
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _convolutions(inner)


def _cuts_patches(equation: Any) -> bool:
    """Whether a convolution is one product with each of many patches, side by side."""
    kernel = equation.invars[1].aval.shape
    _, _, *axes = equation.params["dimension_numbers"].rhs_spec
    sizes = tuple(kernel[axis] for axis in axes)
    return sizes == tuple(equation.params["window_strides"])

"""Groups of points that train together, built from a plan: programs and data sets."""

import dataclasses
import itertools
import pathlib
from collections.abc import Container, Iterator, Sequence
from typing import Any

import jax
import jax.extend.core

from attn.data import Dataset
from attn.train.partition import Mode
from attn.train.program import Program
from attn.train.run import Run
from attn.train.sweep.experiment_file import Point
from attn.train.sweep.plan import Machines, Parallel, Part, Shape, plan


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


def shapes(
    points: Sequence[Point],
    parallel: Parallel,
    machines: Machines,
    begun: Container[str] = (),
) -> list[Shape]:
    """What a plan needs to know of each point, which is built for it and dropped.

    Models are looked into only where the plan depends on what is in them. The weights
    that points start with are looked at too, but for points whose names are in `begun`.

    Raises:
        Invalid: the first point that cannot be built, and why.
    """
    looks = parallel == "auto" and machines.count == 1 and machines.backend != "cpu"
    found: list[Shape] = []
    before: Any = None
    number = 0
    for point, program in programs(points):
        if point.name not in begun:
            program.weights.check()
        if program.train_step is not before:
            before, number = program.train_step, number + 1
            facts = _facts(program) if looks else (0, False)
        sizes = tuple(map(program.dataset.size, program.dataset.splits))
        found.append(Shape(number, sizes, *facts))
    return found


def _facts(program: Program) -> tuple[int, bool]:
    return program.costs["parameters"], made_of_products(program)


def build(points: Sequence[Point], parts: Sequence[Part]) -> Iterator[Group]:
    """The groups of a plan, each built when it comes to be trained."""
    pairs = programs(points)
    stacked: tuple[Any, Any, Program] | None = None  # of which step, in which mode
    for part in parts:
        taken = list(itertools.islice(pairs, part.count))
        program = taken[0][1]
        if part.mode is not None:
            step = program.train_step
            if stacked is None or stacked[0] is not step or stacked[1] != part.mode:
                made = Program(taken[0][0].config, mode=part.mode)
                stacked = step, part.mode, made
            program = stacked[2]
        yield Group(
            points=[point for point, _ in taken],
            program=program,
            datasets=[alone.dataset for _, alone in taken],
            mode=part.mode,
        )


def groups(
    points: Sequence[Point],
    parallel: Parallel = "auto",
    machines: Machines | None = None,
) -> Iterator[Group]:
    """Plans points and builds their groups.

    Args:
        points: those to train, in their order.
        parallel: as `plan.plan` has it.
        machines: on which they train; None for those of this process.

    Raises:
        Invalid: as `plan.check` says, or a point that cannot be built.
    """
    machines = machines or Machines.here()
    parts = plan(shapes(points, parallel, machines), parallel, machines)
    return build(points, parts)


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

"""Groups of points that train together, built from a plan: programs and data sets."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, get_args

import jax
import jax.extend.core

from attn import settings
from attn.data import Dataset
from attn.train.partition import Mode
from attn.train.program import Program
from attn.train.run import Run
from attn.train.store.tracking import Tracking
from attn.train.sweep.experiment_file import Point
from attn.train.sweep.plan import Machines, Parallel, Shape, plan


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

    def runs(
        self,
        directory: pathlib.Path,
        fence: Callable[[], None] = lambda: None,
        tracking: Tracking | None = None,
    ) -> list[Run]:
        """The points for a `loop.Training`, each in its folder of `directory`.

        Args:
            directory: of the sweep.
            fence: called before what others see is written; it raises where this
                process may not write it any more.
            tracking: the services that are told of them.
        """
        shared = fence, tracking or Tracking()
        return [
            Run(point.config, directory / point.name, point.axes, dataset, *shared)
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


class Builder:
    """Builds what trains points, with the programs of the points before.

    Those that differ in the seed from the one before share its program, those that
    differ in the data too share what is compiled.
    """

    def __init__(self):
        """Has built nothing yet."""
        self._before: dict[str, Any] = {}
        self._program: Program | None = None
        self._stacked: tuple[Any, Any, Program] | None = None  # of which step and mode

    def program(self, point: Point) -> Program:
        """The program that trains a point alone."""
        before, config = self._before, {**point.config, "seed": 0}
        if self._program is None or {**config, "data": 0} != {**before, "data": 0}:
            self._program = Program(config)
        elif config != before:
            self._program = self._program.with_data(config)
        self._before = config
        return self._program

    def group(self, points: Sequence[Point], mode: Mode | None) -> Group:
        """Points that train together in a mode, or one alone."""
        alone = [self.program(point) for point in points]
        program = alone[0]
        if mode is not None:
            step = program.train_step
            if self._stacked is None or self._stacked[:2] != (step, mode):
                made = Program(points[0].config, mode=mode)
                self._stacked = step, mode, made
            program = self._stacked[2]
        return Group(list(points), program, [one.dataset for one in alone], mode)


def programs(points: Sequence[Point]) -> Iterator[tuple[Point, Program]]:
    """Each point with the program that trains it alone."""
    builder = Builder()
    return ((point, builder.program(point)) for point in points)


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
        Invalid: the first point that cannot be built, or not train side by side where
            that is asked for, and why.
    """
    looks = parallel == "auto" and machines.count == 1 and machines.backend != "cpu"
    found: list[Shape] = []
    before: Any = None
    number = 0
    for point, program in programs(points):
        one_shape = program.dataset.one_shape
        if parallel in get_args(Mode) and not one_shape:
            raise settings.Invalid(
                f"parallel={parallel!r} needs training batches of one shape, and those"
                f" of {point.name} differ in it (valid: auto, off)"
            )
        if point.name not in begun:
            program.weights.check()
        if program.train_step is not before:
            before, number = program.train_step, number + 1
            facts = _facts(program) if looks else (0, False)
        sizes = tuple(map(program.dataset.size, program.dataset.splits))
        found.append(Shape(number, sizes, *facts, one_shape))
    return found


def _facts(program: Program) -> tuple[int, bool]:
    return program.costs["parameters"], made_of_products(program)


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
        Invalid: as `plan.check` and `shapes` say.
    """
    machines = machines or Machines.here()
    builder, left = Builder(), iter(points)
    parts = plan(shapes(points, parallel, machines), parallel, machines)
    return (
        builder.group(list(itertools.islice(left, part.count)), part.mode)
        for part in parts
    )


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

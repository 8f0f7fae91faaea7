"""Plan of a sweep: which points train side by side, from shapes and machines alone.

Neighbours in a sweep that differ in the seed, or in data of equal shapes, share one
compiled step, so they can take their steps together: each on a device of its own
("devices"), or all in one step on one device ("vmap"). Either way a point gives what
it gives alone on one device, to rounding. Points whose training batches differ in
shape, by the length of sequences or the size of images, train alone: which shape comes
when depends on the seed.

The rule of "auto", which considers a single machine only and at models of up to SMALL
parameters: "devices" where an accelerator has two devices or more; "vmap" on one
accelerator for models that are made of matrix products, such as transformers, as the
convolutions of several networks at once are grouped ones, which are slow. On a CPU
points train one after the other. `python -m benchmarks.together` is the measure. On
two cores vmap took 0.94 to 0.97 of the points' steps alone for a perceptron and a ViT,
0.68 for a convolutional network and 0.14 for a ResNet; two devices of the CPU gained
for the ViT only, and less than splitting its batch over them does. What it says of
accelerators is not measured yet.

Nothing is built or opened here: a plan can be made, shown and tested for machines that
are elsewhere.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Literal, get_args

import jax

from attn import settings
from attn.train.partition import MOST_UNDER_VMAP, Mode

Parallel = Literal["auto", "off", "devices", "vmap"]
SMALL = 10_000_000  # parameters


@dataclasses.dataclass(frozen=True)
class Shape:
    """Facts of a point by which it is planned.

    Attributes:
        step: equal for points that share a compiled step.
        sizes: numbers of examples of its splits.
        parameters: of its model.
        products: whether the model is made of matrix products only.
        one_shape: whether all of its training batches have one shape.
    """

    step: Hashable
    sizes: tuple[int, ...]
    parameters: int
    products: bool
    one_shape: bool


@dataclasses.dataclass(frozen=True)
class Machines:
    """What a sweep runs on.

    Attributes:
        count: of machines.
        backend: "cpu", "gpu" or "tpu".
        devices: of each machine.
    """

    count: int
    backend: str
    devices: int

    @classmethod
    def here(cls) -> "Machines":
        """Those of this process."""
        return cls(jax.process_count(), jax.default_backend(), jax.local_device_count())


@dataclasses.dataclass(frozen=True)
class Part:
    """Neighbours that train together, or a point that trains alone.

    Attributes:
        count: of points.
        mode: how they share a program; None for a point alone.
    """

    count: int
    mode: Mode | None


def check(parallel: str, machines: Machines) -> None:
    """Raises settings.Invalid for a name that is none, or for several machines."""
    check_name(parallel)
    if parallel in get_args(Mode) and machines.count > 1:
        raise settings.Invalid(
            f"parallel={parallel!r} works on a single machine, and there are"
            f" {machines.count} (valid: auto, off)"
        )


def check_name(parallel: str) -> None:
    """Raises settings.Invalid for a name that is none."""
    if parallel not in get_args(Parallel):
        raise settings.unknown("parallel mode", parallel, get_args(Parallel))


def plan(shapes: Sequence[Shape], parallel: Parallel, machines: Machines) -> list[Part]:
    """Cuts points, in their order, into parts that train together.

    Args:
        shapes: of the points.
        parallel: "off" for each alone; "devices" or "vmap" for so wherever neighbours
            share a step and can; "auto" for what the rule above says.
        machines: on which they are to train.

    Raises:
        Invalid: as `check` says.
    """
    check(parallel, machines)
    parts = []
    same = lambda shape: (shape.step, shape.sizes, shape.one_shape)
    for _, found in itertools.groupby(shapes, same):
        alike = list(found)
        mode = _mode(alike, parallel, machines)
        most = {"devices": machines.devices, "vmap": MOST_UNDER_VMAP, None: 1}[mode]
        for count in _cut(len(alike), most):
            parts.append(Part(count, mode if count > 1 else None))
    return parts


def _cut(count: int, most: int) -> Iterator[int]:
    """As few parts as can be of at most so many, as equal as can be."""
    parts = -(-count // most)
    for i in range(parts):
        yield (i + 1) * count // parts - i * count // parts


def _mode(
    alike: Sequence[Shape], parallel: Parallel, machines: Machines
) -> Mode | None:
    if len(alike) < 2 or parallel == "off" or not alike[0].one_shape:
        return None
    if parallel == "devices" or parallel == "vmap":
        return parallel
    if machines.count > 1 or machines.backend == "cpu":
        return None
    if alike[0].parameters > SMALL:
        return None
    if machines.devices > 1:
        return "devices"
    return "vmap" if alike[0].products else None

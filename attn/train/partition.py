"""How steps are spread over devices: the one place that says pmap, vmap, sharding.

One training on all devices: `pmap` (the default) maps the step over an axis of
devices; `mesh` compiles it once for a named mesh and leaves the collectives to the
compiler. In both the state has no device axis and the batch is split evenly.

Several trainings at once, `Together`: `devices` gives each a device of its own,
`vmap` puts all into one step on one device. There the state and the batch have a
leading axis of trainings, and nothing is averaged over it.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from attn import settings

AXIS = "data"
Name = Literal["pmap", "mesh"]
Way = Literal["devices", "vmap"]
# Trainings that one step takes at most under vmap, where memory is the only limit.
MOST_UNDER_VMAP = 8


class Partition:
    """The devices of all hosts in one line, each taking an equal part of the batch.

    Attributes:
        axis: the axis a step averages over, or None where the compiler does it.
        all: the devices of all hosts.
        devices: their number.
        shard: (index, count) of this host among all, for the data.
        most: how many trainings one step can take.
    """

    most = 1

    def __init__(
        self, name: Name = "pmap", devices: Sequence[jax.Device] | None = None
    ):
        """Takes these devices of all hosts; None takes all there are.

        Raises:
            Invalid: an unknown name.
        """
        if name not in ("pmap", "mesh"):
            raise settings.unknown("partition", name, ("pmap", "mesh"))
        self.axis = AXIS if name == "pmap" else None
        self.all = list(devices or jax.devices())
        self.devices = len(self.all)
        self.shard = (jax.process_index(), jax.process_count())
        self._local = [d for d in self.all if d.process_index == self.shard[0]]
        # pmap speaks of this host's devices, a mesh of all
        line = np.asarray(self._local if self.axis else self.all)
        mesh = Mesh(line, (AXIS,), axis_types=(AxisType.Auto,))
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec(AXIS))

    def check(self, batch_size: int) -> None:
        """Raises settings.Invalid for a batch size that the devices do not divide."""
        if batch_size < 1 or batch_size % self.devices:
            nearest = max(round(batch_size / self.devices), 1) * self.devices
            raise settings.Invalid(
                f"batch_size={batch_size} must be a positive multiple of the number of"
                f" devices, {self.devices}; the nearest is {nearest}"
            )

    def place(self, tree: Any) -> Any:
        """Puts arrays of the host, whole, on every device."""
        return jax.device_put(tree, self._whole)

    def split(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Readies this host's part of a batch, [B, ...], for the mapped functions."""
        if self.axis is None:
            return jax.tree.map(
                lambda a: jax.make_array_from_process_local_data(self._split, a), batch
            )
        local = len(self._local)
        return jax.tree.map(lambda a: a.reshape(local, -1, *a.shape[1:]), batch)

    def join(self, trees: Sequence[Any]) -> Any:
        """As `place`, for the trees of all trainings: of the one there is."""
        (tree,) = trees
        return self.place(tree)

    def feed(self, batches: Sequence[Mapping[str, np.ndarray]]) -> Any:
        """As `split`, for the batches of all trainings: of the one there is."""
        (batch,) = batches
        return self.split(batch)

    def parts(self, tree: Any) -> list[Any]:
        """What `fetch` gives of each training."""
        return [fetch(tree)]

    def update(self, step: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Maps `step(state, batch) -> (state, metrics)`; the state is donated."""
        return self._map(step, donate=True)

    def measure(self, step: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Maps `step(variables, batch) -> sums`."""
        return self._map(step, donate=False)

    def _map(self, step: Callable[[Any, Any], Any], *, donate: bool) -> Any:
        donated = (0,) if donate else ()
        if self.axis is not None:
            return jax.pmap(
                step,
                axis_name=self.axis,
                devices=self.all,
                in_axes=(None, 0),
                out_axes=None,
                donate_argnums=donated,
            )
        return jax.jit(
            step,
            in_shardings=(self._whole, self._split),
            out_shardings=self._whole,
            donate_argnums=donated,
        )


class Together(Partition):
    """Several trainings in one program, each on the whole of its own batch.

    Their number is that of the trees and batches given, and may change from call to
    call; each number is compiled once. To be used on a single host.
    """

    def __init__(self, way: Way, devices: Sequence[jax.Device] | None = None):
        """Takes these local devices; None takes all there are.

        Raises:
            Invalid: an unknown way.
        """
        if way not in ("devices", "vmap"):
            raise settings.unknown("way", way, ("devices", "vmap"))
        super().__init__("mesh", devices)
        self._way = way
        self.most = len(self._local) if way == "devices" else MOST_UNDER_VMAP

    def check(self, batch_size: int) -> None:
        """Any batch size will do: no batch is split."""

    def place(self, tree: Any) -> Any:
        """As `join`, for one training."""
        return self.join([tree])

    def split(self, batch: Mapping[str, np.ndarray]) -> Any:
        """As `feed`, for one training."""
        return self.feed([batch])

    def join(self, trees: Sequence[Any]) -> Any:
        """Stacks trees of the host, one a training, where each is to be."""
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        return jax.device_put(stacked, self._place(len(trees)))

    def feed(self, batches: Sequence[Mapping[str, np.ndarray]]) -> Any:
        """Stacks the batches of the trainings, [G, B, ...]."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    def parts(self, tree: Any) -> list[Any]:
        """A copy of the part of each training on the host."""
        leaves, structure = jax.tree.flatten(jax.device_get(tree))
        # a copy, as in `fetch`
        return [
            jax.tree.unflatten(structure, [np.array(part) for part in parts])
            for parts in zip(*leaves, strict=True)
        ]

    def _place(self, count: int) -> Any:
        if self._way == "vmap":
            return self._local[0]
        mesh = Mesh(self._local[:count], (AXIS,), axis_types=(AxisType.Auto,))
        return NamedSharding(mesh, PartitionSpec(AXIS))

    def _map(self, step: Callable[[Any, Any], Any], *, donate: bool) -> Any:
        donated = (0,) if donate else ()
        if self._way == "vmap":
            return jax.jit(jax.vmap(step), donate_argnums=donated)

        @functools.cache
        def mapped(count: int) -> Any:
            devices = self._local[:count]
            return jax.pmap(step, devices=devices, donate_argnums=donated)

        def call(tree: Any, batch: Any) -> Any:
            return mapped(len(jax.tree.leaves(batch)[0]))(tree, batch)

        return call


def fetch(tree: Any) -> Any:
    """A copy of replicated arrays on the host.

    It is a true copy: on a CPU the host sees a device's memory, and the next step
    overwrites what it is given.
    """
    jax.block_until_ready(tree)
    return jax.tree.map(lambda a: np.array(a.addressable_data(0)), tree)


def agree(tree: Any) -> Any:
    """What the first host holds, on every host."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def tell(data: Any) -> Any:
    """Plain data of the first host, as JSON has it, on every host."""
    if jax.process_count() == 1:
        return data
    text = np.frombuffer(json.dumps(data).encode(), np.uint8)
    length = int(agree(np.asarray(len(text))))
    text = agree(np.resize(text, length))
    return json.loads(np.asarray(text, np.uint8).tobytes())

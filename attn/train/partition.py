"""How a step is spread over devices: the one place that says pmap, mesh or sharding.

Two partitions with one interface. `pmap` (the default) maps the step over an axis
of devices; `mesh` compiles it once for a named mesh and leaves the collectives to
the compiler. In both the state has no device axis and the batch is split evenly.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from attn import settings

AXIS = "data"
Name = Literal["pmap", "mesh"]


class Partition:
    """The devices of all hosts in one line, each taking an equal part of the batch.

    Attributes:
        axis: the axis a step averages over, or None where the compiler does it.
        devices: the number of devices over all hosts.
        shard: (index, count) of this host among all, for the data.
    """

    def __init__(
        self, name: Name = "pmap", devices: Sequence[jax.Device] | None = None
    ):
        """Takes these devices of all hosts; None takes all there are.

        Raises:
            ValueError: an unknown name.
        """
        if name not in ("pmap", "mesh"):
            raise settings.unknown("partition", name, ("pmap", "mesh"))
        self.axis = AXIS if name == "pmap" else None
        self._all = list(devices or jax.devices())
        self.devices = len(self._all)
        self.shard = (jax.process_index(), jax.process_count())
        self._local = [d for d in self._all if d.process_index == self.shard[0]]
        # pmap speaks of this host's devices, a mesh of all
        line = np.asarray(self._local if self.axis else self._all)
        mesh = Mesh(line, (AXIS,), axis_types=(AxisType.Auto,))
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec(AXIS))

    def check(self, batch_size: int) -> None:
        """Raises ValueError for a batch size that the devices do not divide."""
        if batch_size < 1 or batch_size % self.devices:
            nearest = max(round(batch_size / self.devices), 1) * self.devices
            raise ValueError(
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
                devices=self._all,
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

"""How steps are spread over devices: the one place that says pmap, vmap, sharding.

One training on all devices: `pmap` (the default) maps the step over an axis of
devices; `mesh` compiles it once for a named mesh and leaves the collectives to the
compiler. In both the state has no device axis and the batch is split evenly.

Several trainings at once, `Stacked`: `devices` gives each a device of its own, `vmap`
puts all into one step on one device. There the state and the batch have a leading
axis of trainings, and nothing is summed over it.
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
Mode = Literal["devices", "vmap"]
# Trainings that one step takes at most under vmap, where memory is the only limit.
MOST_UNDER_VMAP = 8


class Partition:
    """The devices of all machines in one line, each taking an equal part of the batch.

    Attributes:
        axis: the axis a step sums over, or None where the compiler does it.
        all: the devices of all machines.
        devices: their number.
        shard: (index, count) of this machine among all, for the data.
        most: how many trainings one step can take.
    """

    most = 1

    def __init__(
        self, name: Name = "pmap", devices: Sequence[jax.Device] | None = None
    ):
        """Takes these devices of all machines; None takes all there are.

        Raises:
            settings.Invalid: an unknown name.
        """
        if name not in ("pmap", "mesh"):
            raise settings.unknown("partition", name, ("pmap", "mesh"))
        self.axis = AXIS if name == "pmap" else None
        self.all = list(devices or jax.devices())
        self.devices = len(self.all)
        self.shard = (jax.process_index(), jax.process_count())
        self._local = [d for d in self.all if d.process_index == self.shard[0]]
        # pmap speaks of this machine's devices, a mesh of all
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

    def rounded(self, batch_size: int) -> int:
        """The next larger batch size that the devices divide."""
        return -(-batch_size // self.devices) * self.devices

    def replicate(self, tree: Any) -> Any:
        """Puts NumPy arrays, whole, on every device."""
        return jax.device_put(tree, self._whole)

    def stack(self, trees: Sequence[Any]) -> Any:
        """As `replicate`, for the trees of all trainings: of the one there is."""
        (tree,) = trees
        return self.replicate(tree)

    def shard_batch(self, batches: Sequence[Mapping[str, np.ndarray]]) -> Any:
        """Readies this machine's part of each training's batch for the mapped steps.

        Args:
            batches: of all trainings, here of one: fields [B, ...].
        """
        (batch,) = batches
        if self.axis is None:
            return jax.tree.map(
                lambda a: jax.make_array_from_process_local_data(self._split, a), batch
            )
        local = len(self._local)
        return jax.tree.map(lambda a: a.reshape(local, -1, *a.shape[1:]), batch)

    def unstack(self, tree: Any) -> list[Any]:
        """What `fetch` gives of each training."""
        return [fetch(tree)]

    def unshard(self, tree: Any) -> list[Any]:
        """This machine's part of what `eval_step` returned, of each training.

        Returns:
            A tree of NumPy arrays [B, ...] for each training, in the order of the
            batch that went in.
        """
        return [jax.tree.map(self._rows, tree)]

    def _rows(self, array: jax.Array) -> np.ndarray:
        if self.axis is not None:
            return np.asarray(array).reshape(-1, *array.shape[2:])
        shards = sorted(array.addressable_shards, key=lambda s: s.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    def train_step(self, step: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        """Maps `step(state, batch) -> (state, loss)`; the state is donated."""
        if self.axis is not None:
            return jax.pmap(
                step,
                axis_name=self.axis,
                devices=self.all,
                in_axes=(None, 0),
                out_axes=None,
                donate_argnums=0,
            )
        return jax.jit(
            step,
            in_shardings=(self._whole, self._split),
            out_shardings=self._whole,
            donate_argnums=0,
        )

    def eval_step(self, step: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
        """Maps `step(variables, batch, key) -> fields [B, ...]`, for `unshard`."""
        if self.axis is not None:
            return jax.pmap(
                step,
                axis_name=self.axis,
                devices=self.all,
                in_axes=(None, 0, None),
                out_axes=0,
            )
        return jax.jit(
            step,
            in_shardings=(self._whole, self._split, self._whole),
            out_shardings=self._split,
        )


class Stacked(Partition):
    """Several trainings in one program, each on the whole of its own batch.

    Their number is that of the trees and batches given, and may change from call to
    call; each number is compiled once. To be used on a single machine.
    """

    def __init__(self, mode: Mode, devices: Sequence[jax.Device] | None = None):
        """Takes these local devices; None takes all there are.

        Raises:
            settings.Invalid: an unknown mode.
        """
        if mode not in ("devices", "vmap"):
            raise settings.unknown("mode", mode, ("devices", "vmap"))
        super().__init__("mesh", devices)
        self._mode = mode
        self.most = len(self._local) if mode == "devices" else MOST_UNDER_VMAP

    def check(self, batch_size: int) -> None:
        """Any batch size will do: no batch is split."""

    def rounded(self, batch_size: int) -> int:
        """Any batch size will do."""
        return batch_size

    def replicate(self, tree: Any) -> Any:
        """As `stack`, for one training."""
        return self.stack([tree])

    def stack(self, trees: Sequence[Any]) -> Any:
        """Stacks trees of NumPy arrays, one a training, where each is to be."""
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        return jax.device_put(stacked, self._place(len(trees)))

    def shard_batch(self, batches: Sequence[Mapping[str, np.ndarray]]) -> Any:
        """Stacks the batches of the trainings, [G, B, ...]."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    def unstack(self, tree: Any) -> list[Any]:
        """A copy of the part of each training, as NumPy arrays."""
        leaves, structure = jax.tree.flatten(jax.device_get(tree))
        # a copy, as in `fetch`
        return [
            jax.tree.unflatten(structure, [np.array(part) for part in parts])
            for parts in zip(*leaves, strict=True)
        ]

    unshard = unstack  # nothing was split

    def _place(self, count: int) -> Any:
        if self._mode == "vmap":
            return self._local[0]
        mesh = Mesh(self._local[:count], (AXIS,), axis_types=(AxisType.Auto,))
        return NamedSharding(mesh, PartitionSpec(AXIS))

    def train_step(self, step: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        """Maps `step(state, batch) -> (state, loss)`; the state is donated."""
        return self._map(step, (0, 0), donate_argnums=0)

    def eval_step(self, step: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
        """Maps `step(variables, batch, key)`; the key is that of all trainings."""
        return self._map(step, (0, 0, None))

    def _map(self, step: Any, in_axes: tuple[int | None, ...], **options: Any) -> Any:
        if self._mode == "vmap":
            return jax.jit(jax.vmap(step, in_axes=in_axes), **options)

        @functools.cache
        def mapped(count: int) -> Any:
            devices = self._local[:count]
            return jax.pmap(step, devices=devices, in_axes=in_axes, **options)

        def call(tree: Any, batch: Any, *rest: Any) -> Any:
            return mapped(len(jax.tree.leaves(batch)[0]))(tree, batch, *rest)

        return call


def fetch(tree: Any) -> Any:
    """A copy of replicated arrays, as NumPy arrays.

    It is a true copy: on a CPU, NumPy sees a device's memory, and the next step
    overwrites what it is given.
    """
    jax.block_until_ready(tree)
    return jax.tree.map(lambda a: np.array(a.addressable_data(0)), tree)


def broadcast(tree: Any) -> Any:
    """What the first machine holds, on every machine."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def broadcast_json(data: Any) -> Any:
    """Plain data of the first machine, as JSON has it, on every machine."""
    if jax.process_count() == 1:
        return data
    text = np.frombuffer(json.dumps(data).encode(), np.uint8)
    length = int(broadcast(np.asarray(len(text))))
    text = broadcast(np.resize(text, length))
    return json.loads(np.asarray(text, np.uint8).tobytes())


def gather(tree: Any) -> Any:
    """Arrays [N, ...] of all machines along a new first axis: [machines, N, ...].

    Every machine must have arrays of the same shapes.
    """
    if jax.process_count() == 1:
        return jax.tree.map(lambda a: np.asarray(a)[None], tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree))

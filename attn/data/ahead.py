"""Batches made ahead of time by threads, in order.

Grain's part is to ask for batches in threads and to hand them out in order; NumPy and
Pillow let go of the interpreter while they work, so that the accelerator does not wait.
"""

from collections.abc import Callable, Iterator

from attn.data.source import Batch

AHEAD = 4  # batches made ahead of time, at least


class Batches:
    """An iterator of batches made ahead of time; close it, or use it as a context."""

    def __init__(
        self, load: Callable[[int], Batch], start: int, stop: int, *, threads: int
    ) -> None:
        """Makes batches `start` to `stop` - 1 by `load`, which threads call."""
        import grain  # half a second, and nobody needs it before this

        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=max(AHEAD, threads)
        )
        batches = grain.MapDataset.range(start, stop).map(load)
        self._iterator = iter(batches.to_iter_dataset(options))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def close(self) -> None:
        """Ends the threads; may be called twice."""
        self._iterator.close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

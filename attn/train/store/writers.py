"""Metrics: JSON lines that tests and tables read, and what people watch."""

import json
import pathlib
from collections.abc import Callable, Mapping

import tensorboardX

from attn.train.store.tracking import End, Tracked
from attn.workdir import files, stores


class Writer:
    """Writes the metrics of one point.

    `metrics.jsonl` gets what was learnt and nothing that depends on the clock, so
    that a training which was killed and resumed leaves the same bytes as one that
    was not; `speed.jsonl` gets how fast it went. TensorBoard and tracking services
    get both.
    """

    def __init__(
        self, directory: pathlib.Path, *, step: int, tracked: Tracked | None = None
    ):
        """Opens the files of `directory` to go on after `step`.

        Args:
            directory: of the point.
            step: see above.
            tracked: the runs of the point in tracking services.
        """
        self._tracked = tracked or Tracked()
        self._files = {
            name: files.Lines(directory / f"{name}.jsonl", _up_to(step))
            for name in ("metrics", "speed")
        }
        self._copy = stores.Copy(directory / "tensorboard", fetch=False)
        self._events = tensorboardX.SummaryWriter(
            str(self._copy.folder), purge_step=step + 1 if step else None
        )

    def metrics(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """What was learnt by `step`, on the "train" or the "test" split."""
        self._write("metrics", {"step": step, "split": split, **values})
        self._show(split, step, values)

    def speed(self, step: int, values: Mapping[str, float]) -> None:
        """How fast it went up to `step`."""
        self._write("speed", {"step": step, **values})
        self._show("speed", step, values)

    def final(self, values: Mapping[str, float]) -> None:
        """The figures of the whole training, for those who watch."""
        self._tracked.summarise({f"final/{name}": v for name, v in values.items()})

    def _show(self, group: str, step: int, values: Mapping[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._events.add_scalar(name, value, step)
        self._tracked.log(step, named)

    def _write(self, name: str, values: Mapping[str, float | str]) -> None:
        self._files[name].add(json.dumps(values))

    def sync(self) -> None:
        """Makes sure that what was written survives the machine."""
        for file in self._files.values():
            file.sync()
        self._copy.push()

    def close(self, end: End = "stopped", *, lost: bool = False) -> None:
        """Closes the files, and says how the training ended.

        Args:
            end: see above.
            lost: whether others have the point: nothing more is put into a store, where
                it would take the place of what they have written.
        """
        self._tracked.close(end)
        self._events.close()
        if not lost:
            self._copy.push()
        self._copy.close()
        for file in self._files.values():
            file.discard() if lost else file.close()


def _up_to(step: int) -> Callable[[bytes], bool]:
    """Whether a line of JSON is of `step` or an earlier one."""

    def keep(line: bytes) -> bool:
        try:
            return json.loads(line)["step"] <= step
        except ValueError:
            return False

    return keep

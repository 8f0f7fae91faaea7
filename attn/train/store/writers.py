"""Metrics: JSON lines that tests and tables read, and what people watch."""

import json
import os
import pathlib
from collections.abc import Mapping

import tensorboardX

from attn.train.store.tracking import End, Tracked


def _keep_until(path: pathlib.Path, step: int) -> None:
    """Drops the lines after `step`, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(b"".join(kept))
    draft.replace(path)


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
        self._files = {}
        for name in ("metrics", "speed"):
            path = directory / f"{name}.jsonl"
            _keep_until(path, step)
            self._files[name] = path.open("a")
        self._events = tensorboardX.SummaryWriter(
            str(directory / "tensorboard"), purge_step=step + 1 if step else None
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
        file = self._files[name]
        file.write(json.dumps(values) + "\n")
        file.flush()

    def sync(self) -> None:
        """Makes sure that what was written survives the machine."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self, end: End = "stopped") -> None:
        """Closes the files, and says how the training ended."""
        self._tracked.close(end)
        self._events.close()
        for file in self._files.values():
            file.close()

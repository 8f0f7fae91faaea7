"""Findings of a trained model in pictures, whatever its task finds in them."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from attn import modules, settings
from attn.data import pictures
from attn.tasks import Finding
from attn.train import machines
from attn.train.prediction import restored
from attn.train.probes import attention
from attn.train.program import Program
from attn.workdir import files, stores

MOST = 8  # pictures that are looked at together, where they have one size
SHOWN = 48  # pictures whose attention is kept
BYTES = 2**20  # of the attention of a picture; larger maps are left out
LEAST = 0.05  # probability of boxes that are kept


class Seen(NamedTuple):
    """A picture with what was found in it.

    Attributes:
        path: of the file.
        size: width and height, pixels.
        findings: the most probable first, with boxes in pixels of the picture.
        image: what the model read, [H, W, C] in [0, 1], and
        maps: its attention, by path, NumPy arrays [1, ...], for the first SHOWN
            pictures where nothing that was found has a box; else None and empty.
    """

    path: pathlib.Path
    size: tuple[int, int]
    findings: tuple[Finding, ...]
    image: np.ndarray | None
    maps: dict[str, modules.Map]

    @property
    def text(self) -> str:
        """One line."""
        said = (
            f"{found.name} {100 * found.probability:.0f} %" for found in self.findings
        )
        return f"{self.path}: {', '.join(said) or 'nothing'}"


def recognise(
    directory: pathlib.Path,
    paths: Sequence[pathlib.Path],
    output: pathlib.Path,
    which: str = "last",
    overrides: Sequence[tuple[str, str]] = (),
) -> Iterator[Seen]:
    """What a point's model finds in pictures, in their order; see `Task.recognise`.

    At the end it is written beside `output`, for `attn.report.recognised`:

        .json  "point", "step", "task", and of each of the "pictures" its "file", its
               "width" and "height", and what was "found": "name", "probability" and,
               if it has one, "box" (x0, y0, x1, y1) in pixels
        .npz   the attention on the first pictures, if there is any, in the form of
               `attn.train.probes.attention`

    Args:
        directory, which, overrides: as of `prediction.restored`.
        paths: PNG or JPEG files.
        output: the page to come, FILE.html in a directory that exists.

    Raises:
        settings.Invalid: as `restored` says, a file is no picture, `output` cannot be
            written or what has these names beside it is not of an earlier call, or the
            task or data set is not about pictures.
    """
    there = stores.has(output) or output.parent.is_dir()
    if output.suffix != ".html" or not there:
        raise settings.Invalid(
            f"output must be a page FILE.html in a directory that exists, got {output}"
        )
    files.check_access(output.parent, "output")
    _must_be_ours(output)
    sizes = [pictures.size(path) for path in paths]
    program, state = restored(directory, which, overrides)
    example = program.dataset.example()
    if "image" not in example or not set(program.inputs) <= {"image", "image_mask"}:
        raise settings.Invalid(
            "pictures need a model that reads 'image', and this one reads"
            f" {', '.join(program.inputs)}"
        )
    most = 1 if "image_mask" in example else min(MOST, len(paths))
    seen = []
    for first in range(0, len(paths), most):
        part = slice(first, first + most)
        left = max(0, SHOWN - first)
        for one in _seen(
            program, state.variables(), paths[part], sizes[part], most, left
        ):
            seen.append(one)
            yield one
    if not machines.first():
        return
    record = {
        "point": directory.name,
        "step": int(state.step),
        "task": type(program.task).__name__,
        "pictures": [_entry(one) for one in seen],
    }
    path = output.with_suffix(".json")
    with files.asked_for(path):
        files.write_json(path, record)
    path = output.with_suffix(".npz")
    with files.asked_for(path):
        _write_attention(path, seen)


def _must_be_ours(output: pathlib.Path) -> None:
    """Raises Invalid if others wrote what would be written over beside a page."""
    record = output.with_suffix(".json")
    for path in record, output.with_suffix(".npz"):
        if files.exists(path) and not _is_record(record):
            raise settings.Invalid(
                f"{path} is of no earlier prediction and would be written over; name"
                f" another page than {output} by --output"
            )


def _is_record(path: pathlib.Path) -> bool:
    """Whether an earlier call wrote a file."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "pictures" in found


def _seen(
    program: Program,
    variables: Any,
    paths: Sequence[pathlib.Path],
    sizes: Sequence[tuple[int, int]],
    most: int,
    left: int,
) -> Iterator[Seen]:
    """Some pictures, of which the first `left` may have attention.

    The last one is given again as often as a program of one shape needs it.
    """
    images = [pictures.read(path) for path in paths]
    images += images[-1:] * (most - len(images))
    batch, places = pictures.examples(program.dataset, images)
    given = {name: batch[name] for name in program.inputs}
    outputs = jax.device_get(program.compiled("apply", program.apply)(variables, given))
    findings = program.task.recognise(outputs, batch, program.dataset.facts)
    maps = {}
    if left and not any(found.box for one in findings for found in one):
        maps = _maps(program, variables, given)
    for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        kept = [
            _moved(found, places.scale[i], places.shift[i], size)
            for found in findings[i]
            if found.box is None or found.probability >= LEAST
        ]
        image = (
            program.dataset.picture(batch["image"][i]) if maps and i < left else None
        )
        own = {} if image is None else jax.tree.map(lambda a: a[i : i + 1], maps)  # noqa: B023
        yield Seen(path, size, tuple(kept), image, own)


def _moved(
    found: Finding, scale: np.ndarray, shift: np.ndarray, size: tuple[int, int]
) -> Finding:
    """A finding with its box in pixels of the picture."""
    if found.box is None:
        return found
    box = (np.reshape(found.box, (2, 2)) - shift) / scale
    return found._replace(box=tuple(np.clip(box, 0, size).ravel().tolist()))


def _maps(program: Program, variables: Any, given: Any) -> dict[str, modules.Map]:
    """The attention maps that are not too large."""
    _, shapes = jax.eval_shape(program.capture, variables, given)
    count = len(given["image"])
    small = {
        name: sum(2 * leaf.size for leaf in jax.tree.leaves(found.values)) // count
        for name, found in shapes.items()
    }
    small = {name: size for name, size in small.items() if size <= BYTES}
    if not small:
        return {}
    _, maps = program.capture(variables, given)
    return jax.device_get({name: maps[name] for name in small})


def _entry(seen: Seen) -> dict[str, Any]:
    """A picture as JSON takes it."""
    width, height = seen.size
    found = [
        {
            "name": found.name,
            "probability": round(found.probability, 6),
            **({"box": [round(edge, 2) for edge in found.box]} if found.box else {}),
        }
        for found in seen.findings
    ]
    return {"file": str(seen.path), "width": width, "height": height, "found": found}


def _write_attention(path: pathlib.Path, seen: Sequence[Seen]) -> None:
    """The attention of the first pictures, if there is any; else no file."""
    kept = [one for one in seen if one.maps]
    if not kept:
        files.remove(path)
        return
    maps = jax.tree.map(lambda *parts: np.concatenate(parts), *[o.maps for o in kept])
    images = np.stack([one.image for one in kept])
    attention.save(path, images, [(one.path.name, False) for one in kept], maps)

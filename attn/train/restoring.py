"""Pictures that a trained model makes of pictures, such as restored photographs."""

import functools
import io
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, PngImagePlugin

from attn import settings, tasks
from attn.data import pictures
from attn.train import machines
from attn.train.prediction import restored
from attn.train.program import Program
from attn.workdir import files

# Larger pictures are restored tile by tile, so that memory suffices. Tiles overlap, and
# half of what they have in common is taken from each.
TILE, OVERLAP = 384, 32
FOLDER = "restored"  # in the directory of a point, for what nobody has named one
MARK = ("Software", "attn")  # in every file that is written, which later ones replace


class Made(NamedTuple):
    """A picture that was made: of which file, the file it is in, width and height."""

    path: pathlib.Path
    file: pathlib.Path
    size: tuple[int, int]

    @property
    def text(self) -> str:
        """One line."""
        width, height = self.size
        return f"{self.path}: {self.file}, {width}x{height}"


def makes_pictures(directory: pathlib.Path) -> bool:
    """Whether the task of a point makes pictures of pictures.

    Raises:
        settings.Invalid: it is no task.
    """
    name = files.read_json(directory / "config.json")["task"]["name"]
    kind = settings.choose(tasks.TASKS, "task", name)
    return kind.restore is not tasks.Task.restore


def restore(
    directory: pathlib.Path,
    paths: Sequence[pathlib.Path],
    output: pathlib.Path,
    which: str = "last",
    overrides: Sequence[tuple[str, str]] = (),
) -> Iterator[Made]:
    """What a point's model makes of pictures, in their order; see `Task.restore`.

    Each becomes a PNG of its name in a folder, which is made if it is not there. What
    the data set does to degrade images is not done to them.

    Args:
        directory, which, overrides: as of `prediction.restored`.
        paths: PNG or JPEG files.
        output: the folder.

    Raises:
        settings.Invalid: as `restored` says, a file is no picture, the folder is a file
            or cannot be written to, two would be written into one file, or what has
            that name is not of an earlier call.
    """
    files.check_access(output, "output")
    targets = [output / f"{path.stem}.png" for path in paths]
    for path, target in zip(paths, targets, strict=True):
        if targets.count(target) > 1:
            raise settings.Invalid(
                f"{path} and another picture would both be written as {target}; rename"
                " one, or take them one after the other"
            )
        if target.resolve() == path.resolve():
            raise settings.Invalid(
                f"{path} would be written over; name another folder by --output"
            )
        own = output == directory / FOLDER
        if not own and files.exists(target) and not _is_ours(target):
            raise settings.Invalid(
                f"{target} is known as that of no earlier prediction and would be"
                " written over; name another folder by --output"
            )
        pictures.size(path)
    program, state = restored(directory, which, overrides)
    for path, target in zip(paths, targets, strict=True):
        made = of_picture(program, state.variables(), pictures.read(path))
        file = io.BytesIO()
        picture = made[..., 0] if made.shape[-1] == 1 else made
        Image.fromarray(picture).save(file, "PNG", pnginfo=_marks())
        if machines.first():
            files.save(target, file.getvalue())
        yield Made(path, target, made.shape[1::-1])


def _marks() -> PngImagePlugin.PngInfo:
    marks = PngImagePlugin.PngInfo()
    marks.add_text(*MARK)
    return marks


def _is_ours(path: pathlib.Path) -> bool:
    """Whether an earlier call wrote a file."""
    name, value = MARK
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            return image.info.get(name) == value
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def of_picture(program: Program, variables: Any, picture: np.ndarray) -> np.ndarray:
    """What a model makes of a picture, uint8 [H, W, 3] -> uint8 [sH, sW, C].

    Args:
        program: of the model.
        variables: of the model.
        picture: whose tiles are looked at by themselves if it is larger than one.
    """
    spans = [_tiles(side) for side in picture.shape[:2]]
    canvas = None
    for (top, bottom, first), (left, right, start) in itertools.product(*spans):
        made = _made(program, variables, picture[top:bottom, left:right])
        scale = len(made) // (bottom - top)
        if canvas is None:
            size = [scale * side for side in picture.shape[:2]]
            canvas = np.zeros((*size, made.shape[-1]), np.uint8)
        part = made[scale * (first - top) :, scale * (start - left) :]
        canvas[scale * first : scale * bottom, scale * start : scale * right] = part
    return canvas


def _tiles(side: int) -> list[tuple[int, int, int]]:
    """First and last row of each tile of a side, and the first that is taken from it.

    What is below and right of a tile writes over the second half of the overlap.
    """
    if side <= TILE:
        return [(0, side, 0)]
    starts = [*range(0, side - TILE, TILE - OVERLAP), side - TILE]
    return [(s, s + TILE, s and s + OVERLAP // 2) for s in starts]


def _made(program: Program, variables: Any, picture: np.ndarray) -> np.ndarray:
    batch, _ = pictures.examples(program.dataset, [picture], degraded=True)
    given = {name: batch[name] for name in program.inputs}

    def outputs_of(variables: Any, given: Any) -> Any:
        apply = functools.partial(program.apply, variables)
        return program.task.outputs(apply, given)

    outputs = program.compiled("outputs", outputs_of)(variables, given)
    outputs = jax.device_get(outputs)
    (made,) = program.task.restore(outputs, batch)
    return made

"""predict: what a trained model answers to lines, or finds in pictures."""

import pathlib
import sys
from collections.abc import Sequence

from attn import report as reports
from attn import settings
from attn.data import pictures as images
from attn.train import evaluation, machines, prediction, recognition, restoring
from attn.workdir import files, standing, stores


def chosen(workdir: str, only: Sequence[str]) -> list[pathlib.Path]:
    """The points of a work directory, or those that `standing.select` chooses.

    Raises:
        Invalid: an entry that chooses nothing.
    """
    found = evaluation.points(files.path(workdir))
    names = standing.select({path.name: axes for path, axes in found.items()}, only)
    return [path for path in found if path.name in names]


def with_checkpoint(workdir: str, only: Sequence[str]) -> list[pathlib.Path]:
    """The chosen points that have a checkpoint, and those that are named.

    Raises:
        Invalid: there is none, or as `chosen` says.
    """
    found = chosen(workdir, only)
    saved = [path for path in found if path.name in only or _is_saved(path)]
    if not saved:
        raise settings.Invalid(f"no point of {workdir} has a checkpoint yet")
    for path in found:
        if path not in saved and machines.first():
            print(f"{path.name}: no checkpoint yet", file=sys.stderr)
    return saved


def _is_saved(path: pathlib.Path) -> bool:
    """Whether a point has a checkpoint, STEP or in a store STEP.tar."""
    names = files.names(path / "checkpoints")
    return any(name.removesuffix(stores.Copy.END).isdecimal() for name in names)


def one(workdir: str, only: Sequence[str]) -> pathlib.Path:
    """The one point that is chosen.

    Raises:
        Invalid: there are others, or as `chosen` says.
    """
    found = chosen(workdir, only)
    if len(found) != 1:
        known = ", ".join(path.name for path in found)
        raise settings.Invalid(
            f"predict takes one point: --only=POINT (valid: {known})"
        )
    return found[0]


def lines(
    point: pathlib.Path,
    name: str = "-",
    *,
    checkpoint: str,
    overrides: Sequence[tuple[str, str]],
) -> None:
    """Prints the answers to the lines of a file; of standard input for "-".

    Raises:
        Invalid: the file cannot be read, or as `prediction.respond` says.
    """
    if name != "-":
        try:
            with files.local(name).open("rb") as file:
                raw = file.readlines()
        except OSError as error:
            raise settings.Invalid(
                f"{name} cannot be read: {error.strerror}"
            ) from error
        texts, most = list(prediction.read(raw, name)), prediction.MOST
    else:
        texts = prediction.read(sys.stdin.buffer, "standard input")
        most = 1 if sys.stdin.isatty() else prediction.MOST
    answers = prediction.respond(point, texts, checkpoint, overrides, most=most)
    for number, answer in enumerate(answers, 1):
        if machines.first():
            print(answer.text, flush=most == 1)
            if answer.note:
                print(f"line {number}: {answer.note}", file=sys.stderr)


def pictures(
    point: pathlib.Path,
    pattern: str,
    page: str | None,
    checkpoint: str,
    overrides: Sequence[tuple[str, str]],
    *,
    skip_corrupt: bool = False,
) -> None:
    """Prints what the model finds in pictures, and writes it as JSON and a page.

    What makes pictures of pictures writes these into a folder, `page` or "restored" in
    that of the point.

    Raises:
        Invalid: as `images.named`, `recognition.recognise` and `restoring.restore` say.
    """
    paths = images.named(pattern, skip_corrupt=skip_corrupt)
    if restoring.makes_pictures(point):
        folder = files.path(page or str(point / restoring.FOLDER))
        for made in restoring.restore(point, paths, folder, checkpoint, overrides):
            if machines.first():
                print(made.text, flush=True)
        return
    output = files.path(page or str(point / "predictions.html"))
    for found in recognition.recognise(point, paths, output, checkpoint, overrides):
        if machines.first():
            print(found.text, flush=True)
    if machines.first():
        print(f"page: {reports.write_recognised(output)}")
        print(f"predictions: {output.with_suffix('.json')}")

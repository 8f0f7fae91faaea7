"""Answers of a trained model to lines of text, whatever its task makes of them."""

import copy
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from attn import settings
from attn.tasks import Answer
from attn.train.program import Program
from attn.train.state import State
from attn.train.store import trained
from attn.train.sweep import override
from attn.workdir import files

MOST = 32  # lines that are answered together


def restored(
    directory: pathlib.Path, which: str, overrides: Sequence[tuple[str, str]] = ()
) -> tuple[Program, State]:
    """The program of a point and its state in a checkpoint.

    Args:
        directory: of the point.
        which: "last", "best" (by the headline metric on the validation split, of
            those kept), or a step.
        overrides: fields of its config to set otherwise.

    Raises:
        settings.Invalid: no such checkpoint, one that does not fit the config, "best"
            without a validation split, or a data set of other words.
    """
    config = copy.deepcopy(files.read_json(directory / "config.json"))
    for path, text in overrides:
        override.override(config, path, text)
    program = Program(config)
    if which == "best" and "validation" not in program.dataset.splits:
        raise settings.Invalid(
            f"{directory} has no best checkpoint: it was trained without a validation"
            " split (config.data.validation), and the test split selects nothing"
        )
    return program, trained.state(directory, program, which)


def respond(
    directory: pathlib.Path,
    lines: Iterable[str],
    which: str = "last",
    overrides: Sequence[tuple[str, str]] = (),
    *,
    most: int = MOST,
) -> Iterator[Answer]:
    """The answers of a point's model to lines, one each; see `Task.respond`.

    Args:
        directory, which, overrides: as of `restored`.
        lines: read as far as they are needed.
        most: lines that are answered together.

    Raises:
        settings.Invalid: as `restored` says, or the task answers no text.
    """
    program, state = restored(directory, which, overrides)
    return program.task.respond(
        program.model, state.variables(), lines, program.dataset.facts, most=most
    )


def read(raw: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines of UTF-8, without what ends them.

    Args:
        raw: the lines.
        name: of the file, for errors.

    Raises:
        settings.Invalid: a line that is not UTF-8.
    """
    for number, line in enumerate(raw, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise settings.Invalid(
                f"line {number} of {name} is not UTF-8: byte"
                f" 0x{line[error.start]:02x} at place {error.start + 1}"
            ) from error
        yield text.rstrip("\r\n")

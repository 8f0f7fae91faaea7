"""What launchers have in common: the command of a run, and programs that take it."""

import dataclasses
import pathlib
import re
import shlex
import shutil
import subprocess

from attn import settings

STOPPED = 75  # the status of a run that saved and wants to be started again


@dataclasses.dataclass(frozen=True)
class Command:
    """The command of a run, to be rendered for a scheduler.

    Attributes:
        experiment: the name of what is trained.
        flags: of the run, as `launch.py` reads them.
        directory: where it is started, and what its relative paths start from.
        program: the path of `launch.py`.
    """

    experiment: str
    flags: tuple[str, ...]
    directory: pathlib.Path
    program: pathlib.Path

    @property
    def name(self) -> str:
        """A name of small letters, digits and hyphens, which every engine takes."""
        return "attn-" + re.sub(r"[^a-z0-9]+", "-", self.experiment.lower()).strip("-")

    def here(self, python: str, *, alone: bool) -> str:
        """The command for machines that see the files of this one.

        Args:
            python: the interpreter.
            alone: whether a process trains for itself, and joins no others of its job.
        """
        return shlex.join([python, str(self.program), *self._flags(alone)])

    def there(self, python: str, *, alone: bool) -> str:
        """The command for machines with a checkout of their own, started inside it."""
        return shlex.join([python, self.program.name, *self._flags(alone)])

    def _flags(self, alone: bool) -> tuple[str, ...]:
        said = any(flag.startswith("--distributed") for flag in self.flags)
        return self.flags + (("--distributed=off",) if alone and not said else ())


def found(engine: str, program: str) -> str:
    """The path of a program that an engine needs.

    Raises:
        Invalid: it is not on the PATH.
    """
    path = shutil.which(program)
    if path is None:
        raise settings.Invalid(
            f"--to={engine} needs the program {program}, which is not on the PATH;"
            " --dry_run shows what it would get"
        )
    return path


def hand(words: list[str], script: str) -> str:
    """What a program says that takes a script from standard input.

    Raises:
        Invalid: in the program's own words, if it refuses.
    """
    run = subprocess.run(words, input=script, capture_output=True, text=True)
    if run.returncode:
        said = " ".join((run.stderr or run.stdout).split())
        name = pathlib.PurePath(words[0]).name
        raise settings.Invalid(f"{name}: {said or f'status {run.returncode}'}")
    return run.stdout.strip()

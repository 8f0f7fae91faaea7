"""Stand-ins for the programs of schedulers, which note what they were given."""

import os
import pathlib
import stat

from attn.launchers import Command


class Programs:
    """A folder that is all of the PATH, but for the programs that scripts need.

    Nothing else is found there, so no test can reach a scheduler of this machine.
    """

    def __init__(self, folder: pathlib.Path, monkeypatch):
        """Makes the folder the PATH."""
        self.folder = folder
        folder.mkdir()
        for name in ("bash", "cat", "sleep", "flock", "env", "head"):
            (folder / name).symlink_to(f"/usr/bin/{name}")
        monkeypatch.setenv("PATH", str(folder))

    def add(self, name: str, body: str) -> None:
        """Makes a program; $NOTES is a file of its own."""
        path = self.folder / name
        notes = self.folder / f"{name}.notes"
        path.write_text(f"#!{self.folder}/bash\nNOTES={notes}\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def notes(self, name: str) -> str:
        """What a program noted."""
        return (self.folder / f"{name}.notes").read_text()


def command(place: pathlib.Path, *flags: str) -> Command:
    """The command of a run whose launch.py prints its words."""
    program = place / "launch.py"
    program.write_text("import sys; print(sys.argv[1:])")
    return Command("A sweep, 2", flags, pathlib.Path(os.path.realpath(place)), program)

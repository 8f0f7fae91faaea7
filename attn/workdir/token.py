"""The token of a work directory: tells processes whether they see the same one."""

import pathlib
import secrets
import socket

from attn import settings
from attn.workdir import files

FILE = "token"


def made(directory: pathlib.Path) -> str:
    """The token of a work directory, which gets one if it has none."""
    place = directory / files.WORKERS
    files.make(place)
    files.create(place / FILE, secrets.token_hex(8).encode())
    return (place / FILE).read_text()


def check(directory: pathlib.Path, token: str) -> None:
    """Makes sure that a directory is the one that the token was made for.

    Raises:
        Invalid: it is another of the same name; this machine does not share it.
    """
    path = directory / files.WORKERS / FILE
    if not files.exists(path) or path.read_text() != token:
        raise settings.Invalid(
            f"workdir {directory} is not on {socket.gethostname()} what it was where"
            " the run was submitted; name one that all machines share"
        )

"""Object stores: the one place that knows them, by fsspec and the paths of etils.

There are no directories in a store, only names with slashes. What is put there is there
whole or not at all, and takes the place of what was there.
"""

import contextlib
import importlib
import os
import pathlib
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any, cast

from attn import settings

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
# of which an error says that there was no answer, when it comes from reading a path
CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs"}

# errors of theirs that are a mistake here: no credentials were given
MISTAKES = {
    "ClientAuthenticationError",  # azure
    "DefaultCredentialsError",  # google
    *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),  # botocore
}


class Unreached(Exception):
    """A store that has not answered, after its package had tried again."""


class Refused(settings.Invalid, OSError):
    """The store does not let this account read or write there."""


def path(address: str) -> pathlib.Path:
    """The path at an address such as "s3://bucket/x"; it reads like one of pathlib.

    Raises:
        Invalid: no such kind of store, or the package that knows it is missing.
    """
    kind = address.partition("://")[0]
    if kind not in PACKAGES:
        raise settings.unknown("kind of store", f"{kind}://", _addresses())
    package = PACKAGES[kind]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise settings.Invalid(
            f"{address} needs {package}: pip install {package}"
        ) from error
    import fsspec

    # what is listed is what others, too, have written by now
    fsspec.config.conf.setdefault(kind, {})["use_listings_cache"] = False
    os.environ.setdefault("EPATH_USE_TF", "false")  # the same with and without it
    from etils import epath

    return cast(pathlib.Path, epath.Path(address))


def has(path: pathlib.PurePath) -> bool:
    """Whether a path is in a store, and not on a file system."""
    return not isinstance(path, pathlib.Path)


@contextlib.contextmanager
def reaching(directory: pathlib.PurePath) -> Iterator[None]:
    """Tells the want of an answer of a store from other errors.

    Args:
        directory: that is worked in.

    Raises:
        Unreached: it is in a store, which did not answer.
    """
    try:
        yield
    except settings.Invalid:
        raise
    except Exception as error:
        if not has(directory) or not _silent(error):
            raise
        why = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise Unreached(f"the store of {directory} does not answer: {why}") from error


def _silent(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is the want of an answer."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    if any(type(error).__name__ in MISTAKES for error in chain):
        return False
    return any(
        isinstance(error, ConnectionError | TimeoutError)
        or type(error).__module__.partition(".")[0] in CLIENTS
        for error in chain
    )


def _addresses() -> list[str]:
    return [f"{kind}://" for kind in PACKAGES]


def _system(path: pathlib.Path) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(str(path))[0]


@contextlib.contextmanager
def _answers(path: pathlib.Path) -> Iterator[None]:
    """Makes the errors of all packages those of a file system."""
    try:
        yield
    except PermissionError as error:
        raise Refused(f"{path} may not be read or written: {error}") from error
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path}: {error}") from error


def put(path: pathlib.Path, content: bytes) -> None:
    """Puts an object."""
    with _answers(path):
        _system(path).pipe_file(str(path), content)


def create(path: pathlib.Path, content: bytes) -> bool:
    """Puts an object where there is none, which one of several does; whether it did."""
    system = _system(path)
    with _answers(path):
        try:
            system.pipe_file(str(path), content, mode="create")
        except FileExistsError:
            # a request that was sent again, for want of an answer, finds its own
            with contextlib.suppress(FileNotFoundError):
                return system.cat_file(str(path)) == content
            return False
    return True


def check_create(directory: pathlib.Path) -> None:
    """Whether the store keeps what `create` promises, by trying it there.

    Raises:
        Invalid: it overwrites what is there.
    """
    probe = directory / f".probe-{uuid.uuid4().hex}"
    create(probe, b"first")
    try:
        if create(probe, b"second"):
            raise settings.Invalid(
                f"{directory} is in a store that overwrites what is written on the"
                " condition that there is nothing yet, so that workers cannot share it"
            )
    finally:
        remove(probe)


def exists(path: pathlib.Path) -> bool:
    """Whether there is an object, or one below it."""
    with _answers(path):
        return _system(path).exists(str(path))


def written(path: pathlib.Path) -> float:
    """When an object was last put, by the clock of the store, in seconds."""
    with _answers(path):
        return _system(path).modified(str(path)).timestamp()


def names(directory: pathlib.Path) -> list[str]:
    """What is directly below a name."""
    system = _system(directory)
    with _answers(directory):
        try:
            found = system.ls(str(directory), detail=False)
        except FileNotFoundError:
            return []
    own = system._strip_protocol(str(directory)).rstrip("/")
    below = {name.rstrip("/") for name in found} - {own}  # some stores name it, too
    return sorted(name.rpartition("/")[2] for name in below)


def remove(path: pathlib.Path) -> None:
    """Removes an object, if it is there."""
    with _answers(path), contextlib.suppress(FileNotFoundError):
        _system(path).rm_file(str(path))


def check(directory: pathlib.Path) -> None:
    """Whether the store answers and has the bucket.

    Raises:
        Invalid: it does not.
    """
    address, _, rest = str(directory).partition("://")
    bucket = f"{address}://{rest.partition('/')[0]}"
    try:
        found = names(directory) or exists(path(bucket))
    except OSError as error:
        if _silent(error):  # it may answer later: see `reaching`
            raise
        raise settings.Invalid(f"workdir {directory}: {error}") from error
    if not found:
        raise settings.Invalid(f"workdir {directory}: there is no bucket {bucket}")


class Copy:
    """A local folder that stands for a directory, for libraries that need one.

    It is the directory itself on a file system. In a store, each file in the folder is
    an object, and each folder in it one, too, a tar archive: it is there whole or not.
    """

    END = ".tar"

    def __init__(self, directory: pathlib.Path, *, fetch: bool = True):
        """Makes the folder.

        Args:
            directory: that it stands for.
            fetch: whether what is in the store already is needed here.
        """
        self._remote = directory if has(directory) else None
        self._known: dict[str, tuple[int, int]] = {}  # what is in the store
        if self._remote is None:
            self.folder = directory
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="attn-")
        self.folder = pathlib.Path(self._temporary.name)
        for name in names(self._remote) if fetch else ():
            self._fetch(name)

    def _fetch(self, name: str) -> None:
        assert self._remote is not None
        archive = self.folder / f".{name}"
        with _answers(self._remote):
            try:
                _system(self._remote).get_file(str(self._remote / name), str(archive))
            except FileNotFoundError:  # removed meanwhile
                return
        if not name.endswith(self.END):
            archive.rename(self.folder / name)
        else:
            with tarfile.open(archive) as file:
                file.extractall(self.folder, filter="data")
            archive.unlink()
            name = name.removesuffix(self.END)
        self._known[name] = _changed(self.folder / name)

    def push(self) -> None:
        """Puts into the store what is new in the folder, and removes what is gone."""
        if self._remote is None:
            return
        there = {path.name: path for path in self.folder.iterdir()}
        for name, local in there.items():
            changed = _changed(local)
            if self._known.get(name) != changed:
                self._put(local)
                self._known[name] = changed
        for name in self._known.keys() - there.keys():
            remove(self._remote / f"{name}{self.END}")
            remove(self._remote / name)
            del self._known[name]

    def _put(self, local: pathlib.Path) -> None:
        assert self._remote is not None
        name = local.name
        with tempfile.TemporaryDirectory(prefix="attn-") as place:
            if local.is_dir():
                name += self.END
                archive = pathlib.Path(place) / name
                with tarfile.open(archive, "w") as file:
                    file.add(local, local.name)
                local = archive
            with _answers(self._remote):
                _system(self._remote).put_file(str(local), str(self._remote / name))

    def close(self) -> None:
        """Removes the folder, if it is not the directory itself."""
        if self._remote is not None:
            self._temporary.cleanup()


def _changed(path: pathlib.Path) -> tuple[int, int]:
    """What changes when a file is written, or a folder is made anew."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns

"""Finds prepared TFDS data sets on disk, and prepares those that need no download.

Data sets lie where TensorFlow Datasets puts them: in $TFDS_DATA_DIR or
~/tensorflow_datasets, or in a directory that is asked for. They are read without
TensorFlow, which works for the array_record format only.
"""

import contextlib
import difflib
import fcntl
import importlib
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from attn import settings

# Builders of ours, which prepare themselves on first use. Paths, as importing one
# imports TFDS.
BUILDERS = {
    "mnist_5k": "attn.data.images.builders.mnist_5k:Mnist5k",
    "photos": "attn.data.images.builders.photos:Photos",
}


def builder(name: str, directory: str) -> Any:
    """The TFDS builder of a prepared data set.

    Args:
        name: of TFDS ("cifar10", "imagenet2012", "cifar10:3.0.2") or of `BUILDERS`.
        directory: where data sets lie; "" for TFDS's usual place.

    Raises:
        Invalid: an unknown name; a set that is not prepared, or not as
            array_record (the message says which command prepares it).
    """
    import tensorflow_datasets as tfds

    directory = str(pathlib.Path(directory).expanduser()) if directory else ""
    if name in BUILDERS:
        directory = directory or os.path.expanduser(tfds.core.constants.DATA_DIR)
        _prepare(name, directory)
    try:
        found = tfds.core.read_only_builder.builder_from_files(
            name, data_dir=directory or None
        )
    except tfds.core.DatasetNotFoundError:
        raise _not_prepared(name, directory) from None
    if found.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise settings.Invalid(
            f"data set {name!r} is prepared as {found.info.file_format.value} in"
            f" {found.data_dir}, which needs TensorFlow to be read; prepare it"
            f" again by {_command(name)}"
        )
    return found


def _prepare(name: str, directory: str) -> None:
    """Prepares a set of ours unless it is there; safe beside other processes.

    TFDS writes beside the final place and renames at the end, so that what is
    there is whole. The lock, which the system drops when a process dies, makes the
    others wait; what a killed process left is removed under it.
    """
    module, _, attribute = BUILDERS[name].partition(":")
    make = getattr(importlib.import_module(module), attribute)
    target = make(data_dir=directory, file_format="array_record")
    place = pathlib.Path(target.data_dir)
    prepared = place / "dataset_info.json"  # TFDS writes it before it renames
    if prepared.exists():
        return
    try:
        with _locked(pathlib.Path(directory), name):
            if prepared.exists():
                return
            for left in (place, *place.parent.glob("incomplete.*")):
                shutil.rmtree(left, ignore_errors=True)
            print(
                f"preparing {name} in {directory} (once, some seconds)", file=sys.stderr
            )
            with _silence():
                target.download_and_prepare()
    except OSError as error:
        raise settings.Invalid(
            f"cannot prepare data set {name!r} in {directory}: {error};"
            " set data.directory or $TFDS_DATA_DIR to a place that can be written"
        ) from error


@contextlib.contextmanager
def _locked(directory: pathlib.Path, name: str) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Swallows TFDS's progress bars and announcements."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield


def _not_prepared(name: str, directory: str) -> settings.Invalid:
    """The error for a set that is not on disk: unknown, or what prepares it."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate  # registers wmt14_translate and its like

    from attn import data

    known = tfds.list_builders(with_community_datasets=False)
    base = name.partition(":")[0].partition("/")[0]
    looked = directory or os.path.expanduser(tfds.core.constants.DATA_DIR)
    if name.partition(":")[0] in BUILDERS and base != name:
        return settings.Invalid(
            f"data set {name!r} is not prepared in {looked}: {base!r}, without a"
            " version, prepares itself"
        )
    if base not in known:
        ours = list(data.DATASETS)
        near = difflib.get_close_matches(base, [*ours, *known], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return settings.Invalid(
            f"unknown data set {name!r}{hint} (valid: {', '.join(ours)}, the sets of"
            f" TensorFlow Datasets, what is prepared in {looked}, and the path of a"
            " folder of images, with ./ before a relative one)"
        )
    manual = tfds.builder_cls(base).MANUAL_DOWNLOAD_INSTRUCTIONS
    needs = "`pip install tensorflow-cpu tensorflow-datasets`"
    if manual:
        needs += f" and a download by hand ({' '.join(manual.split())})"
    return settings.Invalid(
        f"data set {name!r} is not prepared in {looked}: prepare it on any machine by"
        f" {_command(name)}, which needs {needs}, and copy the folder {base!r} there,"
        " or set data.directory or $TFDS_DATA_DIR to where it is"
    )


def _command(name: str) -> str:
    call = f"tfds.builder({name!r}, file_format='array_record').download_and_prepare()"
    # those of WMT are registered by a module of their own
    more = ", tensorflow_datasets.translate" * name.startswith("wmt")
    return f'`python -c "import tensorflow_datasets as tfds{more}; {call}"`'

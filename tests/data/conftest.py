"""The digits, prepared once and kept between runs of the tests."""

import hashlib
import os
import pathlib
import tempfile

import pytest

from attn.data import prepare
from attn.data.builders import mnist_5k


@pytest.fixture(scope="session")
def directory() -> str:
    """A directory of data sets that has mnist_5k as its present builder makes it."""
    code = pathlib.Path(mnist_5k.__file__).read_bytes()
    place = (
        pathlib.Path(tempfile.gettempdir())
        / f"attn-tests-{os.getuid()}"
        / f"data-{hashlib.sha256(code).hexdigest()[:12]}"
    )
    prepare.builder("mnist_5k", str(place))
    return str(place)

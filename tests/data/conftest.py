"""The sets of ours, prepared once and kept between runs of the tests."""

import os

import pytest

from attn.data import prepare


@pytest.fixture(scope="session")
def directory() -> str:
    """A directory of data sets that has ours as their present builders make them."""
    place = os.environ["TFDS_DATA_DIR"]
    for name in prepare.BUILDERS:
        prepare.builder(name, place)
    return place

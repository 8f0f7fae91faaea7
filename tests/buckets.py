"""Buckets of a local server of S3, for tests of what is kept in an object store."""

import functools
import itertools
import logging
import os

import pytest

NUMBERS = itertools.count()


def server():
    """A new server, and the variables that lead clients to it."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    return running, {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def client(variables):
    """A client of a server that is not the one that is kept."""
    import s3fs

    return s3fs.S3FileSystem(
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        key=variables["AWS_ACCESS_KEY_ID"],
        secret=variables["AWS_SECRET_ACCESS_KEY"],
        use_listings_cache=False,
    )


@functools.cache
def _kept():
    """Starts the server that this process keeps, as clients do their connections."""
    running, variables = server()
    os.environ |= variables
    return running


def new():
    """The address of an empty bucket, "s3://bucket-N"."""
    _kept()
    import s3fs

    name = f"bucket-{next(NUMBERS)}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"

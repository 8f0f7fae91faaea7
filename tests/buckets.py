"""Buckets of a local server of S3, for tests of what is kept in an object store."""

import functools
import itertools
import logging
import os

import pytest

NUMBERS = itertools.count()


@functools.cache
def _server():
    """Starts the server that this process keeps, as clients do their connections."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return running


def new():
    """The address of an empty bucket, "s3://bucket-N"."""
    _server()
    import s3fs

    name = f"bucket-{next(NUMBERS)}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"

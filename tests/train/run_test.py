"""Runs whose point others have taken over, and that only then find out."""

import json

import numpy as np
import pytest

from attn.tasks import Metric
from attn.train.evaluation import Evaluation
from attn.train.run import Run
from attn.workdir import files
from attn.workdir.leases import Lost
from tests import buckets
from tests.train import small

HEADLINE = Metric("error", "error", "%", "lower", 2, "share")
FOUND = Evaluation({"error": 50.0}, {}, np.arange(4))
NEWER = b"".join(b'{"step": %d}\n' % step for step in (2, 4, 6, 8))


class Fence:
    """Lets a run write until its point is lost."""

    lost = False

    def __call__(self):
        if self.lost:
            raise Lost("p was taken over by another worker")


@pytest.fixture
def fence():
    return Fence()


@pytest.mark.parametrize("step", [None, 4])  # the next that it writes, if any
def test_it_puts_nothing_over_what_the_others_have_put(fence, step):
    directory = files.path(f"{buckets.new()}/sweep/p")
    run = Run(small.config(), directory, {}, None, fence)
    path = directory / "metrics.jsonl"
    with run.open(HEADLINE):
        run.go_on(0)
        run.evaluated(2, "test", FOUND)
        fence.lost = True
        files.write_bytes(path, NEWER)
        if step:
            with pytest.raises(Lost):
                run.evaluated(step, "test", FOUND)
    assert path.read_bytes() == NEWER
    assert files.names(directory) == ["metrics.jsonl"]


def test_it_puts_what_it_has_while_it_holds_the_point(fence):
    directory = files.path(f"{buckets.new()}/sweep/p")
    run = Run(small.config(), directory, {}, None, fence)
    with run.open(HEADLINE):
        run.go_on(0)
        run.evaluated(2, "test", FOUND)
    assert json.loads((directory / "metrics.jsonl").read_bytes())["step"] == 2
    assert "tensorboard" in files.names(directory)


def test_it_adds_no_line_and_drops_none(fence, tmp_path):
    run = Run(small.config(), tmp_path, {}, None, fence)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(NEWER)
    with run.open(HEADLINE):
        fence.lost = True
        with pytest.raises(Lost):
            run.go_on(2)
        assert path.read_bytes() == NEWER
        fence.lost = False
        run.go_on(8)
        fence.lost = True
        with pytest.raises(Lost):
            run.evaluated(10, "test", FOUND)
    assert path.read_bytes() == NEWER

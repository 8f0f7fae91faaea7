"""The files of metrics, through kills and resumptions."""

import json

import pytest
from tensorboardX.proto import event_pb2

from attn.train.store.writers import Writer


def events(directory):
    """The scalars in TensorBoard's files: framed records of Event messages."""
    found = []
    for path in sorted(directory.glob("events*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            found += [
                (event.step, value.tag, round(value.simple_value, 5))
                for value in event.summary.value
            ]
    return found


def test_writes_lines_and_events(tmp_path):
    writer = Writer(tmp_path, step=0)
    writer.metrics(10, "train", {"loss": 1.5, "error": 60.0})
    writer.speed(10, {"examples_per_s": 100.0})
    writer.metrics(20, "test", {"loss": 1.25})
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 10, "split": "train", "loss": 1.5, "error": 60.0},
        {"step": 20, "split": "test", "loss": 1.25},
    ]
    assert json.loads((tmp_path / "speed.jsonl").read_text()) == {
        "step": 10,
        "examples_per_s": 100.0,
    }
    found = events(tmp_path / "tensorboard")
    assert (10, "train/loss", 1.5) in found
    assert (20, "test/loss", 1.25) in found
    assert (10, "speed/examples_per_s", 100.0) in found


@pytest.mark.parametrize("cut", ["", '{"step": 30, "split', '{"step": 30}'])
def test_resuming_drops_what_came_after_the_checkpoint(tmp_path, cut):
    writer = Writer(tmp_path, step=0)
    for step in (10, 20, 30):
        writer.metrics(step, "train", {"loss": step / 10})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    unbroken = path.read_bytes()
    path.write_bytes(unbroken.rsplit(b"\n", 2)[0] + b"\n" + cut.encode())

    writer = Writer(tmp_path, step=20)
    writer.metrics(30, "train", {"loss": 3.0})
    writer.close()

    assert path.read_bytes() == unbroken

"""Answers to lines, as a person asks for them."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from attn import settings
from attn.tasks import answers
from attn.train import loop, prediction
from attn.train.interruption import Interruption
from attn.train.program import Program
from tests.train import small

ROOT = pathlib.Path(__file__).parents[2]
LINES = ["Saturday, May 2, 1981", "", "12 years", " \t", "one " * 200, "3 hours"]


@pytest.fixture(scope="module")
def point(tmp_path_factory):
    """The directory of a model that has hardly been trained on babel."""
    directory = tmp_path_factory.mktemp("babel") / "point"
    config = small.config(
        data={
            "name": "babel",
            "train_size": 60,
            "eval_size": 8,
            "vocab_size": 300,
            "validation": "validation",
            "buckets": 1,
        },
        model={
            "name": "transformer",
            "width": 16,
            "depth": 1,
            "num_heads": 2,
            "mlp_dim": 16,
        },
        task={"name": "translation", "extra_length": 5, "beams": 1},
        train={"steps": 3, "batch_size": 8},
    )
    program = Program(config, jax.devices()[:1])
    listener = small.Listener()
    loop.train(
        program,
        config,
        directory,
        {},
        progress=listener,
        interruption=Interruption(),
    )
    return directory


def test_each_line_has_an_answer_whatever_the_others_are(point):
    found = list(prediction.respond(point, LINES))
    assert [bool(answer.text) for answer in found] == [1, 0, 1, 0, 1, 1]
    assert found[4].note.startswith("cut to ")
    assert not any(answer.note for i, answer in enumerate(found) if i != 4)
    # other lines in the group, and another one that fills it
    assert list(prediction.respond(point, LINES[4::-1])) == found[4::-1]


def test_the_command_answers_line_by_line(point, tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes("\n".join(LINES).encode())
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    command = [sys.executable, str(ROOT / "launch.py"), "predict", str(path)]
    command += [f"--workdir={point}", f"--compilation_cache={cache}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1000
    )
    assert run.returncode == 0, run.stderr
    said = run.stdout.split("\n")[:-1]
    want = [answer.text for answer in prediction.respond(point, LINES)]
    assert said == want
    assert "line 5: cut to " in run.stderr


def test_lines_that_are_not_utf8_are_named():
    raw = [b"\xef\xbb\xbfone\r\n", "zwölf\n".encode(), b"", b"ab\xff\n"]
    with pytest.raises(
        settings.Invalid, match=r"line 4 of in\.txt is not UTF-8: byte 0xff at place 3"
    ):
        list(prediction.read(raw, "in.txt"))
    assert list(prediction.read(raw[:3], "in.txt")) == ["one", "zwölf", ""]


def test_other_words_than_those_of_the_training_are_refused(point, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(point, other)
    (other / "tokenizer.json").write_text("{}")
    with pytest.raises(settings.Invalid, match=r"another tokenizer\.json than"):
        prediction.respond(other, LINES)


def test_a_task_without_answers_says_so():
    config = small.config()
    program = Program(config, jax.devices()[:1])
    with pytest.raises(settings.Invalid, match="Classification answers no lines"):
        program.task.respond(None, None, LINES, {}, most=2)


def test_rows_are_padded_to_few_lengths():
    lengths = {answers.padded([[1] * n], 50, 0)[0].shape[1] for n in range(51)}
    assert lengths == {8, 16, 32, 50}
    values, mask = answers.padded([[3, 4], [5]], 50, 9)
    np.testing.assert_array_equal(values[:, :3], [[3, 4, 9], [5, 9, 9]])
    np.testing.assert_array_equal(mask[:, :3], [[1, 1, 0], [1, 0, 0]])

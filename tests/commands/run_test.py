"""The command run, but for the training itself."""

import errno
import os

from attn.commands import run
from attn.train.progress import Silence
from attn.train.sweep import experiment_file
from attn.workdir import files

FILE = """from tests.train import small

def get_config(arg):
    return small.config()
"""


def test_a_disk_that_is_full_before_a_training_is_one_line(
    tmp_path, monkeypatch, capsys
):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (tmp_path / "one.py").write_text(FILE)
    experiment = experiment_file.load(tmp_path / "one.py", "")
    directory = tmp_path / "w"
    monkeypatch.setattr(run, "_listener", Silence)
    monkeypatch.setattr(files, "write_bytes", full)
    status = run.train(experiment, experiment.points, directory, parallel="off")
    assert status == 1
    said = capsys.readouterr().err
    assert said.startswith(f"failed: the disk of {directory} is full; free some")
    assert len(said.splitlines()) == 1

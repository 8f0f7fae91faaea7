"""Work directories: atomic files, locks, and what is refused."""

import json
import os
import subprocess
import sys

import pytest

from attn.train import workdir


def test_a_json_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    assert workdir.read_json(path) is None
    workdir.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        workdir.write_json(path, {"a": object()})
    assert workdir.read_json(path) == {"a": 1}


def test_difference_names_fields_and_both_values():
    old = {"train": {"steps": 250, "batch_size": 8}, "model": {"slots": {}}}
    new = {"train": {"steps": 500, "batch_size": 8}, "model": {"slots": {"a": "b"}}}
    assert workdir.difference(old, old) == ""
    assert workdir.difference(old, new) == (
        "model.slots: {} -> absent; model.slots.a: absent -> 'b';"
        " train.steps: 250 -> 500"
    )


def test_refuses_a_file_and_a_directory_of_somebody_else(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        workdir.check(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written"):
        workdir.check(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="no sweep's"):
        workdir.check(tmp_path)
    workdir.check(tmp_path / "new" / "deeper")
    assert not (tmp_path / "new").exists()
    workdir.write_json(tmp_path / "experiment.json", {})
    workdir.check(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_refuses_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="no access"):
        workdir.check(tmp_path / "new")


def test_two_processes_do_not_share_a_directory(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from attn.train import workdir\n"
        "try:\n"
        "    with workdir.held(pathlib.Path(sys.argv[1])): print('held')\n"
        "except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = lambda: subprocess.run(command, capture_output=True, text=True).stdout
    with workdir.held(tmp_path):
        assert "in use by another process" in run()
    assert run() == "held\n"


def test_the_environment_is_plain_data():
    found = json.loads(json.dumps(workdir.environment()))
    assert found["packages"].keys() == set(workdir.PACKAGES)
    assert found["devices"] == 8

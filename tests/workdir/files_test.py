"""Work directories: atomic files, locks, and what is refused."""

import json
import os
import subprocess
import sys

import pytest

from attn.workdir import diff, files, machine


def test_a_json_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    assert files.read_json(path) is None
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}


def test_difference_names_fields_and_both_values():
    old = {"train": {"steps": 250, "batch_size": 8}, "model": {"slots": {}}}
    new = {"train": {"steps": 500, "batch_size": 8}, "model": {"slots": {"a": "b"}}}
    assert diff.difference(old, old) == ""
    assert diff.difference(old, new) == (
        "model.slots: {} -> absent; model.slots.a: absent -> 'b';"
        " train.steps: 250 -> 500"
    )


def test_refuses_a_file_and_a_directory_of_somebody_else(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        files.check(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written"):
        files.check(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="no sweep's"):
        files.check(tmp_path)
    files.check(tmp_path / "new" / "deeper")
    assert not (tmp_path / "new").exists()
    files.write_json(tmp_path / "experiment.json", {})
    files.check(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_refuses_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="no access"):
        files.check(tmp_path / "new")


def test_two_processes_do_not_share_a_directory(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from attn.workdir import files\n"
        "try:\n"
        "    with files.held(pathlib.Path(sys.argv[1])): print('held')\n"
        "except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = lambda: subprocess.run(command, capture_output=True, text=True).stdout
    with files.held(tmp_path):
        assert "in use by another process" in run()
    assert run() == "held\n"


def test_the_environment_is_plain_data():
    found = json.loads(json.dumps(machine.environment()))
    assert found["packages"].keys() == set(machine.PACKAGES)
    assert found["devices"] == 8

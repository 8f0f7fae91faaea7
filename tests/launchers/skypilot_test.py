"""SkyPilot's task, handed to a played sky."""

import pytest

from attn import settings
from attn.launchers.skypilot import Skypilot
from tests.launchers.programs import command

TASK = """\
name: "attn-a-sweep-2"
workdir: "{place}"
num_nodes: 1
resources:
  accelerators: "H100:1"
  use_spot: true
  job_recovery:
    recover_on_exit_codes: [75]
setup: "pip install -r requirements.txt"
run: "python launch.py --workdir=/runs/x --distributed=off"
file_mounts:
  /runs:
    source: "gs://b"
    mode: "MOUNT"
"""


def test_sky_gets_the_task(programs, tmp_path, capsys):
    programs.add("sky", 'echo "${@:1:$#-1}" > "$NOTES"; cat "${@: -1}" >> "$NOTES"')
    sky = Skypilot(accelerators="H100:1", spot=True, bucket="gs://b")
    assert sky.submit(command(tmp_path, "--workdir=/runs/x")) == 0
    first, _, task = programs.notes("sky").partition("\n")
    assert first == "jobs launch --yes --detach-run"
    assert task == TASK.format(place=tmp_path)


def test_the_words_of_sky_are_one_line(programs, tmp_path):
    programs.add("sky", "echo No cloud >&2; echo is enabled >&2; exit 1")
    with pytest.raises(settings.Invalid, match=r"^sky: No cloud is enabled$"):
        Skypilot().submit(command(tmp_path))


def test_nodes_name_the_first(tmp_path):
    run = Skypilot(nodes=2).render(command(tmp_path))
    assert "$SKYPILOT_NODE_IPS" in run and "--distributed=off" not in run

"""Ray: workers as tasks of a cluster on this machine, where Ray is installed."""

import sys
import threading

import pytest

from attn import settings
from attn.launchers.ray import Ray
from tests.launchers import cluster
from tests.launchers.programs import command


def test_ray_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(settings.Invalid, match=r"pip install -r requirements-launch"):
        Ray().submit(command(tmp_path))


# Stops once after saving, is killed once, and then is done, with a status.
PROGRAM = """
import os, pathlib, signal, sys
times = pathlib.Path(sys.argv[1])
with times.open("a") as file:
    file.write("x")
started = len(times.read_text())
assert "ray" not in sys.modules
if started == 1:
    sys.exit(75)
if started == 2:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize("status", [0, 1])
def test_a_task_is_started_again_until_it_is_done(status, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: requirements-launch.txt")
    times = tmp_path / "times"
    run = command(tmp_path, str(times), str(status))
    run.program.write_text(PROGRAM)
    assert Ray(address="local").submit(run) == status
    assert times.read_text() == "xxx"


# Works until there is a file "enough"; each start is noted.
WAITS = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
with (place / "times").open("a") as file:
    file.write("x")
while not (place / "enough").exists():
    time.sleep(0.1)
"""


def test_a_task_moves_when_its_node_dies(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: requirements-launch.txt")
    from ray.cluster_utils import Cluster

    run = command(tmp_path, str(tmp_path))
    run.program.write_text(WAITS)
    times = tmp_path / "times"
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    found = []
    ray = Ray(address=nodes.address)
    thread = threading.Thread(target=lambda: found.append(ray.submit(run)))
    try:
        node = nodes.add_node(num_cpus=1)
        thread.start()
        cluster.wait(times.exists)
        nodes.add_node(num_cpus=1)
        nodes.remove_node(node, allow_graceful=False)
        cluster.wait(lambda: times.read_text() == "xx")
        (tmp_path / "enough").touch()
        thread.join(60)
        assert found == [0]
    finally:
        (tmp_path / "enough").touch()
        nodes.shutdown()

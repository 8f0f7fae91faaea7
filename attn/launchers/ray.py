"""Ray: a task a worker, on a running cluster or on this machine."""

import dataclasses
import json
import shlex
import sys

from attn import settings
from attn.launchers import base
from attn.settings import NotNegative, Positive


@dataclasses.dataclass(frozen=True)
class Ray:
    """Tasks of Ray, each a process of its own that imports JAX.

    Attributes:
        address: of the cluster, "auto" for the one of this machine, "local" for one
            that lives as long as the command.
        workers: tasks; each takes points that no other has.
        gpus, cpus: of each.
        retries: how often a task is started again, of which a node died or that
            stopped after saving; -1 for without end.
        python: the interpreter, on the nodes.
    """

    shares = True

    address: str = "auto"
    workers: Positive = 1
    gpus: NotNegative = 0
    cpus: NotNegative = 1
    retries: int = -1
    python: str = sys.executable

    def render(self, command: base.Command) -> str:
        """The tasks, as JSON."""
        return json.dumps(self._tasks(command), indent=2) + "\n"

    def _tasks(self, command: base.Command) -> dict:
        return {
            "address": self.address,
            "tasks": self.workers,
            "options": {
                "num_cpus": self.cpus,
                "num_gpus": self.gpus,
                "max_retries": self.retries,
            },
            "directory": str(command.directory),
            "command": command.here(self.python, alone=True),
        }

    def submit(self, command: base.Command) -> int:
        """Runs the tasks to their end, and gives the highest status of a run.

        Raises:
            Invalid: Ray is not installed, or there is no cluster at the address.
        """
        try:
            import ray
        except ImportError as error:
            raise settings.Invalid(
                "--to=ray needs Ray: pip install -r requirements-launch.txt"
            ) from error
        tasks = self._tasks(command)

        def work(words: list[str], directory: str, stopped: int) -> int:
            import subprocess

            status = subprocess.call(words, cwd=directory)
            if status == stopped or status < 0:
                raise InterruptedError(f"stopped with status {status}")
            return status

        try:
            ray.init(address=self.address, log_to_driver=True)
        except ConnectionError as error:
            raise settings.Invalid(
                f"--to=ray: no cluster at {self.address!r}; start one with 'ray start"
                " --head', or give --launch.address=local"
            ) from error
        remote = ray.remote(work).options(
            **tasks["options"], retry_exceptions=[InterruptedError]
        )
        words = shlex.split(tasks["command"])
        runs = [
            remote.remote(words, tasks["directory"], base.STOPPED)
            for _ in range(self.workers)
        ]
        try:
            return max(ray.get(runs))
        except ray.exceptions.RayError as error:
            print(f"ray: {' '.join(str(error).split())}", file=sys.stderr)
            return base.STOPPED
        finally:
            ray.shutdown()

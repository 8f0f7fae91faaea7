"""SkyPilot: a managed job on a machine of any cloud, found again when it is gone."""

import dataclasses
import json
import tempfile

from attn.launchers import base
from attn.settings import Positive


@dataclasses.dataclass(frozen=True)
class Skypilot:
    """A managed job of SkyPilot. What is "" is left to its defaults.

    Attributes:
        accelerators: such as "H100:1".
        infra: cloud, region and zone, such as "gcp/us-central1".
        spot: whether the machine may be preempted.
        bucket: of the work directory, such as "gs://bucket"; it outlives the machine.
        mount: where the bucket is mounted; --workdir lies below it.
        nodes: machines that train together.
        setup: shell commands that prepare a machine.
        python: the interpreter, there.
    """

    shares = False

    accelerators: str = ""
    infra: str = ""
    spot: bool = False
    bucket: str = ""
    mount: str = "/runs"
    nodes: Positive = 1
    setup: str = "pip install -r requirements.txt"
    python: str = "python"

    def render(self, command: base.Command) -> str:
        """The task as YAML: checkout, resources, bucket, command."""
        resources = {
            "infra": self.infra,
            "accelerators": self.accelerators,
            "use_spot": self.spot,
            "job_recovery": {"recover_on_exit_codes": [base.STOPPED]},
        }
        task = {
            "name": command.name,
            "workdir": str(command.program.parent),
            "num_nodes": self.nodes,
            "resources": {key: value for key, value in resources.items() if value},
            "setup": self.setup,
            "run": self._run(command),
        }
        if self.bucket:
            mounted = {"source": self.bucket, "mode": "MOUNT"}
            task["file_mounts"] = {self.mount: mounted}
        return "\n".join(_yaml(task)) + "\n"

    def _run(self, command: base.Command) -> str:
        run = command.there(self.python, alone=self.nodes == 1)
        if self.nodes == 1:
            return run
        first = '"$(head -n1 <<< "$SKYPILOT_NODE_IPS"):8476'
        return f'{run} --distributed={first},$SKYPILOT_NUM_NODES,$SKYPILOT_NODE_RANK"'

    def submit(self, command: base.Command) -> int:
        """Hands the task to SkyPilot and prints its answer; gives status 0.

        Raises:
            Invalid: there is no sky, or it refuses the task.
        """
        sky = base.found("skypilot", "sky")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(self.render(command))
            file.flush()
            words = [sky, "jobs", "launch", "--yes", "--detach-run"]
            print(base.hand([*words, file.name], ""))
        return 0


def _yaml(tree: dict) -> list[str]:
    """Lines of YAML; a scalar or list is as in JSON, which is YAML as well."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {line}" for line in _yaml(value))]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return lines

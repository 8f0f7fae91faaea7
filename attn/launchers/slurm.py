"""SLURM: an array of jobs, each a worker that is queued again until all is done."""

import dataclasses
import shlex
import sys

from attn import settings
from attn.launchers import base
from attn.settings import Positive


@dataclasses.dataclass(frozen=True)
class Slurm:
    """A job array. What is None or "" is left to the cluster's defaults.

    Attributes:
        workers: jobs of the array; each takes points that no other has.
        nodes: nodes of a worker, which train together.
        partition, account, time, memory: as sbatch takes them.
        gpus, cpus: of each node.
        grace: seconds before the time is up at which a worker is told to save.
        options: more options of sbatch, as a command line has them.
        setup: shell commands before the run, such as "module load cuda".
        python: the interpreter, on the nodes.
    """

    shares = True

    workers: Positive = 1
    nodes: Positive = 1
    partition: str = ""
    account: str = ""
    time: str = ""
    memory: str = ""
    gpus: Positive | None = None
    cpus: Positive | None = None
    grace: Positive = 120
    options: str = ""
    setup: str = ""
    python: str = sys.executable

    def __post_init__(self):
        """Raises Invalid for options that are no command line."""
        try:
            shlex.split(self.options)
        except ValueError as error:
            raise settings.Invalid(
                f"options of slurm are no command line, {self.options!r}: {error}"
            ) from error

    def render(self, command: base.Command) -> str:
        """The script for sbatch.

        The run is a step of its own (srun), for signals of the scheduler go to steps.
        """
        given = {
            "job-name": command.name,
            "chdir": command.directory,
            "array": f"0-{self.workers - 1}",
            "requeue": None,
            "open-mode": "append",
            "signal": f"TERM@{self.grace}",
            "nodes": self.nodes,
            "ntasks-per-node": 1,
            "partition": self.partition,
            "account": self.account,
            "time": self.time,
            "mem": self.memory,
            "gpus-per-node": self.gpus or "",
            "cpus-per-task": self.cpus or "",
        }
        options = [
            f"--{name}" if value is None else f"--{name}={shlex.quote(str(value))}"
            for name, value in given.items()
            if value != ""
        ]
        # in one line, for a value may be the word behind its option
        more = shlex.join(shlex.split(self.options))
        step = "srun --kill-on-bad-exit=1"
        if self.cpus:
            step += f" --cpus-per-task={self.cpus}"
        return "\n".join(
            [
                "#!/bin/bash",
                *(f"#SBATCH {o}" for o in [*options, *filter(None, [more])]),
                *([self.setup] if self.setup else []),
                f"{step} {command.here(self.python, alone=self.nodes == 1)}",
                "status=$?",
                f"if [ $status = {base.STOPPED} ]; then  # saved, and wants to go on",
                '    scontrol requeue "$SLURM_JOB_ID"',
                "fi",
                "exit $status\n",
            ]
        )

    def submit(self, command: base.Command) -> int:
        """Hands the script to sbatch and prints its answer; gives status 0.

        Raises:
            Invalid: there is no sbatch, or it refuses the script.
        """
        print(base.hand([base.found("slurm", "sbatch")], self.render(command)))
        return 0

"""Cloud TPU: a run on all machines of a TPU, which is made again when it is gone."""

import dataclasses
import shlex
import subprocess

from attn import settings
from attn.launchers import base

LOCK = "/tmp/attn.lock"
# Verbs of gcloud for a TPU that is asked for at once, and for one in the queue.
AT_ONCE = """\
state() { tpu tpu-vm describe --format='value(state)' 2>/dev/null; }
make() { tpu tpu-vm create @OPTIONS; }
remove() { tpu tpu-vm delete --quiet 2>/dev/null; }"""
QUEUED = """\
state() { tpu queued-resources describe --format='value(state.state)' 2>/dev/null; }
make() { tpu queued-resources create --node-id=@NAME @OPTIONS; }
remove() { tpu queued-resources delete --force --quiet 2>/dev/null; }"""
# Of a TPU that must exist: where it was known, no answer says nothing.
MADE_BY_OTHERS = (
    """make() { [ "$known" ] || echo 'there is no such TPU' >&2; return 1; }""",
    "remove() { :; }",
)
SCRIPT = """\
#!/bin/bash
# Runs until done, on a TPU that is made again whenever it is gone.
tpu() { gcloud compute tpus "$1" "$2" @NAME @WHERE "${@:3}"; }
@VERBS
known=
while :; do
    case "$(state)" in
    READY | ACTIVE)
        known=yes
        tpu tpu-vm ssh --worker=all --command=@COMMAND
        status=$?
        # 75: saved, and wants to go on; 255: the connection was lost
        if [ $status != 75 ] && [ $status != 255 ]; then
            case "$(state)" in READY | ACTIVE) exit $status ;; esac
        fi
        ;;
    PREEMPTED | TERMINATED | FAILED | SUSPENDED) remove ;;
    "")  # none, or no answer: what is there is left alone
        make || [ "$known" ] || exit 1  # the first time it may be a mistake
        ;;
    esac
    sleep "${ATTN_PAUSE:-30}"
done
"""


@dataclasses.dataclass(frozen=True)
class Tpu:
    """A TPU VM or slice, all of whose machines train together.

    Attributes:
        zone: where it is.
        tpu_name: that of the experiment if "".
        project: of Google Cloud, gcloud's own if "".
        accelerator: such as "v5litepod-8"; if "" the TPU must exist.
        version: of its software, such as "v2-alpha-tpuv5-lite".
        queued: whether it is asked for as a queued resource, which waits for room.
        spot: whether it may be preempted.
        setup: shell commands on each machine before each run, such as those that
            make the checkout.
        directory: of the checkout, there.
        python: the interpreter, from the checkout.
    """

    shares = False

    zone: str
    tpu_name: str = ""
    project: str = ""
    accelerator: str = ""
    version: str = ""
    queued: bool = False
    spot: bool = False
    setup: str = ""
    directory: str = "attn"
    python: str = ".venv/bin/python"

    def __post_init__(self):
        """Raises Invalid for an accelerator without its version, or the reverse."""
        if bool(self.accelerator) != bool(self.version):
            raise settings.Invalid(
                "tpu takes 'accelerator' and 'version' together, got"
                f" {self.accelerator!r} and {self.version!r}"
            )
        if (self.queued or self.spot) and not self.accelerator:
            raise settings.Invalid(
                "tpu with 'queued' or 'spot' needs 'accelerator' and 'version'"
            )

    def render(self, command: base.Command) -> str:
        """A script that makes the TPU, runs, and starts again until it is done.

        A lock on each machine keeps a second run from beginning while one goes on
        whose connection was lost.
        """
        run = command.there(self.python, alone=False)
        lines = ["set -e", self.setup, f"cd {shlex.quote(self.directory)}"]
        remote = "\n".join(filter(None, [*lines, f"flock {LOCK} {run}"]))
        where = [f"--zone={self.zone}"]
        where += [f"--project={self.project}"] if self.project else []
        options = [
            f"--accelerator-type={self.accelerator}",
            f"--{'runtime-version' if self.queued else 'version'}={self.version}",
            *(["--spot"] if self.spot else []),
        ]
        verbs = QUEUED if self.queued else AT_ONCE
        if not self.accelerator:
            verbs = "\n".join([verbs.split("\n")[0], *MADE_BY_OTHERS])
        marks = {
            "@VERBS": verbs,  # first, for there are others in it
            "@NAME": shlex.quote(self.tpu_name or command.name),
            "@WHERE": shlex.join(where),
            "@OPTIONS": shlex.join(options),
            "@COMMAND": shlex.quote(remote),
        }
        script = SCRIPT
        for mark, text in marks.items():
            script = script.replace(mark, text)
        return script

    def submit(self, command: base.Command) -> int:
        """Runs the script here until the run is done, and gives its status.

        Raises:
            Invalid: there is no gcloud.
        """
        base.found("tpu", "gcloud")
        return subprocess.call(["bash", "-c", self.render(command)])

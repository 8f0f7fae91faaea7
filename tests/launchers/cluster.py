"""A SLURM cluster of this machine alone, with daemons and files of its own."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
PLACES = f"/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}"
# Jobs of the partition "low" make way for those of "high", and are queued again.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MpiDefault=none
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes={host} PriorityTier=10
"""


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=PLACES)]
    if lacking:
        return f"SLURM is not installed (Debian: slurm-wlm): no {', '.join(lacking)}"
    return "" if os.getuid() == 0 else "SLURM's daemons must be started by root"


def _ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@contextlib.contextmanager
def cluster(place: pathlib.Path) -> Iterator[None]:
    """Starts the daemons, for programs that find SLURM_CONF, and stops them again."""
    for name in ("munge", "state", "spool"):
        (place / name).mkdir(mode=0o755)
    key = place / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    config = place / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    config.write_text(
        CONFIG.format(place=place, host=host, ports=_ports(), cores=os.cpu_count())
    )
    os.environ["SLURM_CONF"] = str(config)
    munge = [f"--{name}={place}/munge/{name}" for name in ("socket", "log-file")]
    munge += [f"--pid-file={place}/munge/pid", f"--seed-file={place}/munge/seed"]
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}", *munge],
        ["slurmctld", "-D", "-f", str(config)],
        ["slurmd", "-D", "-f", str(config)],
    ]
    daemons = []
    try:
        for words in commands:
            with (place / f"{words[0]}.out").open("w") as out:
                words[0] = shutil.which(words[0], path=PLACES)
                daemons.append(
                    subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)
                )
            time.sleep(1)
        wait(lambda: "idle" in said("sinfo", "-h", "-p", "low", "-o", "%t"))
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        del os.environ["SLURM_CONF"]


def said(*words: str) -> str:
    """What a program of SLURM prints."""
    return subprocess.run(words, capture_output=True, text=True).stdout


def wait(over, seconds: float = 60) -> None:
    """Waits until something is so."""
    until = time.monotonic() + seconds
    while not over():
        assert time.monotonic() < until
        time.sleep(0.1)

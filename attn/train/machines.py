"""Machines that train together: finds the others, and says which one speaks."""

import os
import re
import sys

import jax

from attn import settings
from attn.train import ending

# What JAX says where it finds no cluster to be part of.
ALONE = "coordinator_address should be defined"
# Where launchers that JAX does not know tell how many processes they started together.
COUNTS = ("PMI_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE", "FLUX_JOB_SIZE")


def join(where: str, timeout: int = 20) -> None:
    """Joins the other machines, before anything else uses JAX.

    Only that there is no cluster is passed over: where there is one and it cannot be
    joined, a machine that went on alone would train everything for itself, in the
    directory of all.

    A process that is alone on its machine has all of its devices, and each step of a
    SLURM job a port of its own; JAX would give it one device, and all steps one port.

    Args:
        where: "auto" for the cluster that JAX finds, if any; "off" for none; or
            "ADDRESS:PORT,MACHINES,INDEX".
        timeout: seconds to wait for them; then the program ends as if one was lost.

    Raises:
        Invalid: `where` is none of these, or "auto" where processes were started
            together and JAX does not know by what.
        RuntimeError, ValueError: as JAX says, of a cluster that cannot be joined.
    """
    place = parse(where)
    if where == "auto":
        _join_cluster(timeout)
    elif place is not None:
        ending.initialize(*place, initialization_timeout=timeout)


def parse(where: str) -> tuple[str, int, int] | None:
    """The address, number of machines and index in a `where` of `join`, if it has them.

    Raises:
        Invalid: it is none.
    """
    if where in ("off", "auto"):
        return None
    address, *numbers = where.split(",")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise settings.Invalid(
            "--distributed must be auto, off or ADDRESS:PORT,MACHINES,INDEX, got"
            f" {where!r}"
        )
    count, index = map(int, numbers)
    if index >= count:
        raise settings.Invalid(
            f"--distributed: INDEX must be less than MACHINES, {count}, got {index}"
        )
    return address, count, index


def _join_cluster(timeout: int) -> None:
    """Joins the cluster that JAX finds, if any."""
    step = os.environ if "SLURM_STEP_NODELIST" in os.environ else {}
    if step.get("SLURM_NTASKS") == "1":
        return
    if "SLURM_JOB_ID" in step and "SLURM_STEP_ID" in step:
        # JAX's port, moved on by the step; the factor is odd, so steps differ
        moved = int(step["SLURM_JOB_ID"]) + 997 * int(step["SLURM_STEP_ID"])
        os.environ.setdefault("JAX_COORDINATOR_PORT", str(61440 + moved % 4096))
    # such as "1(x4)"; MPI's is a number
    tasks = step.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get(
        "OMPI_COMM_WORLD_LOCAL_SIZE", ""
    )
    every = re.fullmatch(r"1(\(x\d+\))?", tasks)
    try:
        # an empty list stands for all devices, None for the one of the local index
        ending.initialize(
            local_device_ids=[] if every else None, initialization_timeout=timeout
        )
    except ValueError as error:
        if ALONE not in str(error):
            raise
        _must_be_alone()
    else:
        if jax.process_count() > 1 and first():
            print(
                f"{jax.process_count()} processes train together; --distributed=off"
                " makes each a worker of its own",
                file=sys.stderr,
            )


def _must_be_alone() -> None:
    for name in COUNTS:
        count = os.environ.get(name, "1")
        if count not in ("", "0", "1"):
            raise settings.Invalid(
                f"{count} processes were started together ({name}), by what JAX does"
                " not know; let them train together with"
                " --distributed=ADDRESS:PORT,MACHINES,INDEX, or each for itself with"
                " --distributed=off"
            )


def first() -> bool:
    """Whether this machine is the one that writes and prints."""
    return jax.process_index() == 0

"""Machines that train together: finds the others, and says which one speaks."""

import jax

from attn import settings

# What JAX says where it finds no cluster to be part of.
ALONE = "coordinator_address should be defined"


def join(where: str) -> None:
    """Joins the other machines, before anything else uses JAX.

    Only that there is no cluster is passed over: where there is one and it cannot be
    joined, a machine that went on alone would train everything for itself, in the
    directory of all.

    Args:
        where: "auto" for the cluster that JAX finds, if any; "off" for none; or
            "ADDRESS:PORT,MACHINES,INDEX".

    Raises:
        Invalid: `where` is none of these.
        RuntimeError, ValueError: as JAX says, of a cluster that cannot be joined.
    """
    if where == "off":
        return
    if where == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            if ALONE not in str(error):
                raise
        return
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
    jax.distributed.initialize(address, count, index)


def first() -> bool:
    """Whether this machine is the one that writes and prints."""
    return jax.process_index() == 0

"""The end of machines that train together: none is left waiting for one that is gone.

Each waits for all others in every step. So one that ends for a reason of its own tells
the others, and they end with its status. One that is lost without a word is noticed by
JAX, and the others end with the status of a run that wants to be started again.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import distributed  # the only way to the store that machines share

from attn.settings import Invalid
from attn.train.interruption import Stopped
from attn.train.run import Failed
from attn.workdir.leases import Lost
from attn.workdir.stores import Unreached

STOPPED = 75  # EX_TEMPFAIL: what schedulers take as "start me again"
INTERRUPTED = 130  # as shells say of Ctrl-C
SILENCE = 15  # seconds without a sign of life after which a machine is lost
LEAVE = 2  # seconds that the others have to hear of an end, before the first one ends
KEY = "attn/end"
LOST = b"stopped: another machine was lost; run the same command to go on\n"


def initialize(*arguments: Any, **options: Any) -> None:
    """Calls `jax.distributed.initialize`; from then on the loss of a machine is an end.

    JAX answers the loss, and machines that cannot be met, by an abort from one of its
    threads; it has a callback instead, but none that can be written in Python. So an
    abort for another reason counts as a loss, too; what JAX says of it stands above.

    Raises:
        RuntimeError, ValueError: as JAX says.
    """
    before = _on_abort(ctypes.cast(_lost, ctypes.c_void_p))
    try:
        jax.distributed.initialize(
            *arguments, heartbeat_timeout_seconds=SILENCE, **options
        )
    finally:
        if _several():
            listening = threading.Thread(target=_listen, daemon=True)
            listening.start()
            atexit.register(_end, listening, before)
        else:
            _on_abort(before)


def _on_abort(handler: Any) -> Any:
    """Sets what the system calls where the program aborts; gives what it was before."""
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    return library.signal(signal.SIGABRT, handler)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Lets all machines end where one does, with its status.

    Only `Stopped` is left to each of them: they stop after the same step.
    """
    try:
        yield
    except Stopped:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if _several():
            _tell(error)
        raise


def _several() -> bool:
    return distributed.is_initialized() and distributed.global_state.num_processes > 1


def _tell(error: BaseException) -> None:
    """Tells the others with which status this machine will end, and why."""
    statuses = {Invalid: 2, Failed: 1, Lost: STOPPED, Unreached: STOPPED}
    statuses |= {KeyboardInterrupt: INTERRUPTED}
    found = [status for kind, status in statuses.items() if isinstance(error, kind)]
    if not found:  # it may come from the loss of another, of which JAX hears later
        time.sleep(SILENCE + 10)
    status = found[0] if found else 1
    why = " ".join(f"{type(error).__name__}: {error}".split())
    _over.set()
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was faster
        distributed.global_state.client.key_value_set(KEY, f"{status} {why}")
    atexit.register(_leave, status)  # before JAX waits for the others


def _listen() -> None:
    """Ends this machine with the status that another one tells."""
    client = distributed.global_state.client
    while not _over.is_set():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # no word within a second
            status, _, why = client.blocking_key_value_get(KEY, 1000).partition(" ")
            if not _over.is_set():
                os.write(2, f"another machine has ended: {why}\n".encode())
                _leave(int(status))


def _end(listening: threading.Thread, before: Any) -> None:
    """Waits for the others at the end of the program, where a loss is one, still.

    Python must have no thread and no handler when it goes down itself.
    """
    _over.set()
    listening.join()
    jax.distributed.shutdown()
    _on_abort(before)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if distributed.global_state.process_id == 0:  # through which the others are told
        time.sleep(LEAVE)
    os._exit(status)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _lost(number: int) -> None:
    del number
    os.write(2, LOST)
    os._exit(STOPPED)


_over = threading.Event()  # this machine hears of no end any more: it is at its own

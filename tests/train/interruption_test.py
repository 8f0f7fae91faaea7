"""Signals become requests, once."""

import os
import signal

import pytest

from attn import settings
from attn.train import interruption
from attn.train.interruption import SIGNALS


@pytest.mark.parametrize("number", [getattr(signal, "SIG" + n) for n in SIGNALS])
def test_a_signal_asks_and_the_next_one_is_as_before(number):
    before = signal.getsignal(number)
    with interruption.watch() as asked:
        assert not asked.at(1)
        os.kill(os.getpid(), number)
        assert asked.at(2)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_a_signal_that_was_held_back_is_heard():
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        signal.raise_signal(signal.SIGINT)  # to this thread: others hold none back
        with interruption.watch() as asked:
            assert asked.at(1)
        assert not held & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_only_the_signals_that_are_named_are_heard():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.watch(["USR2"]) as asked:
        assert signal.getsignal(signal.SIGTERM) == before
        os.kill(os.getpid(), signal.SIGUSR2)
        assert asked.at(1)


@pytest.mark.parametrize("name", ["SIGTERM", "usr1", "KILL", "STOP", "_IGN", ""])
def test_what_is_no_signal_to_be_heard_is_refused(name):
    before = signal.getsignal(signal.SIGINT)
    with (
        pytest.raises(settings.Invalid, match=f"--stop_on .* got '{name}'"),
        interruption.watch(["INT", name]),
    ):
        pass
    assert signal.getsignal(signal.SIGINT) == before

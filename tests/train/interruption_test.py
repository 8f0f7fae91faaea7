"""Signals become requests, once."""

import os
import signal

import pytest

from attn.train import interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_the_next_one_is_as_before(number):
    before = signal.getsignal(number)
    with interruption.watch() as asked:
        assert not asked.at(1)
        os.kill(os.getpid(), number)
        assert asked.at(2)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before

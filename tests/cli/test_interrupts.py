from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from artifacts.cli.interrupts import interrupt_on_signals


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Each test begins with the defaults, and leaves what was there."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_interrupts_once_and_says_the_exit_code(number: signal.Signals, code: int) -> None:
    ended_by = interrupt_on_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert ended_by == [code]
    os.kill(os.getpid(), number)
    assert ended_by == [code]


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ended_by = interrupt_on_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert ended_by == []

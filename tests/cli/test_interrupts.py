from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from artifacts.cli.interrupts import hold_signals, interrupt_on_signals


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


def send_while_held(*numbers: signal.Signals) -> list[signal.Signals]:
    """Send the signals in a block that holds them; returns those after which the block went on."""
    went_on: list[signal.Signals] = []
    try:
        with hold_signals():
            for number in numbers:
                os.kill(os.getpid(), number)
                went_on.append(number)
    except KeyboardInterrupt:
        return [*went_on, signal.SIGINT]
    return went_on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_held_interrupts_at_the_end_of_the_block(number: signal.Signals) -> None:
    ended_by = interrupt_on_signals()
    assert send_while_held(number) == [number, signal.SIGINT]
    assert ended_by == ([] if number == signal.SIGINT else [128 + number])
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_control_c_pressed_twice_interrupts_at_once() -> None:
    assert send_while_held(signal.SIGINT, signal.SIGINT, signal.SIGINT) == [signal.SIGINT, signal.SIGINT]


def test_control_c_behind_another_signal_waits_once() -> None:
    interrupt_on_signals()
    assert send_while_held(signal.SIGTERM, signal.SIGINT) == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]


def test_at_the_end_a_signal_ends_the_process_without_a_word() -> None:
    program = (
        "import os, signal, sys; from artifacts.cli.interrupts import *; interrupt_on_signals(); end_silently();"
        "os.kill(os.getpid(), int(sys.argv[1]))"
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        done = subprocess.run([sys.executable, "-c", program, str(int(number))], capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (-number, b"", b"")


def test_nothing_is_held_of_a_signal_that_is_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert send_while_held(signal.SIGHUP) == [signal.SIGHUP]

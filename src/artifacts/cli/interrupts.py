"""End a run on SIGTERM and SIGHUP as Control-C does.

Finished artifacts stay, the table is printed, and the journal is written.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The exit code of a run that a signal ended is this plus the signal's number, as in a shell.
SIGNAL_EXIT_CODES = 128


def interrupt_on_signals() -> list[int]:
    """Raise KeyboardInterrupt in the main thread on SIGTERM and SIGHUP.

    Return a list that is empty until such a signal arrives; then it contains the exit code. A signal that is already
    ignored stays ignored.
    """
    ended_by: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        if not ended_by:  # a second signal would interrupt the report
            ended_by.append(SIGNAL_EXIT_CODES + number)
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # under `nohup`, SIGHUP is ignored
            signal.signal(number, interrupt)
    return ended_by


def end_silently() -> None:
    """From now on, let a signal end the process at once: all is said, and Python would print where it was."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait until the block ends. The first of them is handled then.

    A second SIGINT is handled at once: Control-C, pressed twice, ends whatever runs.
    """
    held: list[int] = []
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(handler := signal.getsignal(number))
    }

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if held.count(signal.SIGINT) > 1:
            handlers[signal.SIGINT](number, frame)

    for number in handlers:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if held:
        handlers[signal.Signals(held[0])](held[0], None)

"""Signals that end a run as Control-C does: what is finished is kept, the table is printed, the journal is written."""

from __future__ import annotations

import signal

# A shell adds the signal's number to it.
FATAL_SIGNAL = 128


def interrupt_on_signals() -> list[int]:
    """Raise KeyboardInterrupt in the main thread on SIGTERM and SIGHUP.

    Returns a list to which the exit code of such an end is added. A signal that is ignored already stays so.
    """
    ended_by: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        if not ended_by:  # one is enough: a second would interrupt the report
            ended_by.append(FATAL_SIGNAL + number)
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored, and it stays so
            signal.signal(number, interrupt)
    return ended_by

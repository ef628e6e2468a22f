"""End a run on SIGTERM and SIGHUP as Control-C does.

Finished artifacts stay, the table is printed, and the journal is written.
"""

from __future__ import annotations

import signal

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

"""Progress of a run: live where standard output is a terminal, else in plain lines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from artifacts.cli.tables import size_text
from artifacts.errors import ArtifactsError, printable
from artifacts.plan.explain import NEVER_BUILT
from artifacts.run.outcome import Outcome
from artifacts.store.journal import Status

if TYPE_CHECKING:
    from rich.progress import Progress as LiveDisplay

# Where there is no terminal, a step's progress is a line at most this often.
PLAIN_SECONDS = 5.0


class Progress:
    """A build's listener: each ended target with how many are done, and what is left by the seconds of earlier runs."""

    def __init__(self) -> None:
        self._targets = self._done = 0
        self._estimate: Callable[[], dict[str, float]] = dict
        self._expected: dict[str, float] | None = None
        self._live: LiveDisplay | None = None
        self._tasks: dict[str, Any] = {}
        self._printed_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._terminal = sys.stdout.isatty()

    def begin(self, targets: int, estimate: Callable[[], dict[str, float]]) -> None:
        """Note how many targets there are. `estimate` returns the expected seconds of those that may be built.

        It is called once, when the first step starts: a run that finds nothing to build does not wait for it.
        """
        self._targets, self._estimate = targets, estimate

    def unchanged(self) -> None:
        """Count a target that is current."""
        with self._lock:
            self._done += 1

    def started(self, target: str, why: list[str]) -> None:
        """Show that a step runs, and why it has to."""
        with self._lock:
            if self._expected is None:
                self._expected = self._estimated()
            self._printed_at[target] = time.monotonic()
            reasons = [reason for reason in why if reason != NEVER_BUILT]
            self._print(f"{self._column('')}building {target}{': ' if reasons else ''}{'; '.join(reasons[:1])}")
            for reason in reasons[1:]:
                self._print(f"{self._column('')}         {' ' * len(target)}  {reason}")
            if self._terminal and not self._closed:
                self._show(target, "", None, None)

    def progressed(self, target: str, message: str, done: int | None, total: int | None) -> None:
        """Show what a step reports."""
        with self._lock:
            if self._closed:
                return
            if self._terminal:
                self._show(target, message, done, total)
                return
            now = time.monotonic()
            if now - self._printed_at.get(target, 0.0) >= PLAIN_SECONDS:
                self._printed_at[target] = now
                count = f" {done} of {total}" if done is not None and total else f" {done}" if done else ""
                self._print(f"{self._column('')}  {target}: {message}{count}")

    def ended(self, outcome: Outcome) -> None:
        """Show the outcome of a target."""
        with self._lock:
            self._done += 1
            if self._live is not None and outcome.target in self._tasks:
                self._live.remove_task(self._tasks.pop(outcome.target))
            if self._expected is not None:
                self._expected.pop(outcome.target, None)
            if outcome.status == Status.UNCHANGED:
                return
            took = f"  {outcome.seconds:.1f} s" if outcome.seconds >= 0.05 else ""
            size = f"  {size_text(outcome.bytes)}" if outcome.bytes else ""
            count = f"[{self._done}/{self._targets}]"
            self._print(f"{self._column(count)}{outcome.status} {outcome.target}{size}{took}{self._left()}")

    def close(self) -> None:
        """End the live display. Steps that still run are not shown any more."""
        with self._lock:
            self._closed = True
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _estimated(self) -> dict[str, float]:
        try:
            return self._estimate()
        except (ArtifactsError, OSError):
            return {}  # the build meets the same error, and reports it

    def _left(self) -> str:
        seconds = sum((self._expected or {}).values())
        if seconds < 1:
            return ""
        return f"  ({seconds:.0f} s left)" if seconds < 100 else f"  ({seconds / 60:.0f} min left)"

    def _column(self, text: str) -> str:
        width = 2 * len(str(self._targets)) + 4
        return f"{text:>{width - 1}} "

    def _show(self, target: str, message: str, done: int | None, total: int | None) -> None:
        if target not in self._tasks:
            self._tasks[target] = self._display().add_task(target, total=None, message="")
        self._display().update(self._tasks[target], message=printable(message), completed=done or 0, total=total)

    def _display(self) -> LiveDisplay:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if self._live is None:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
            # A step's words are not markup.
            self._live = Progress(*columns, TextColumn("{task.fields[message]}", markup=False), transient=True)
            self._live.start()
        return self._live

    def _print(self, line: str) -> None:
        line = printable(line)
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
            return
        print(line, flush=True)

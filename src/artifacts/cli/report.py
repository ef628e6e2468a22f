"""Tells a person what a run does and did: progress while it works, a table at the end."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from artifacts.errors import printable
from artifacts.run.build import Outcome

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

# Where there is no terminal, a step's progress is a line at most this often.
PLAIN_SECONDS = 5.0
WER_PREFIX = "wer_percent_"


class Report:
    """A listener that shows running steps: live where standard output is a terminal, else in plain lines."""

    def __init__(self) -> None:
        self._live: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._terminal = sys.stdout.isatty()

    def started(self, target: str, why: list[str]) -> None:
        """Show that a step runs, and for what reasons."""
        with self._lock:
            self._said[target] = time.monotonic()
            self._print(f"build    {target}: {why[0] if why else 'it is not in the store'}")
            for reason in why[1:]:
                self._print(f"         {' ' * len(target)}  {reason}")
            if self._terminal and not self._closed:
                self._show(target, "", None, None)

    def progressed(self, target: str, message: str, done: int | None, total: int | None) -> None:
        """Show what a step is doing."""
        with self._lock:
            if self._closed:
                return
            if self._terminal:
                self._show(target, message, done, total)
                return
            now = time.monotonic()
            if now - self._said.get(target, 0.0) >= PLAIN_SECONDS:
                self._said[target] = now
                count = f" {done} of {total}" if done is not None and total else f" {done}" if done else ""
                self._print(f"         {target}: {message}{count}")

    def ended(self, outcome: Outcome) -> None:
        """Show how a target ended."""
        with self._lock:
            if self._live is not None and outcome.target in self._tasks:
                self._live.remove_task(self._tasks.pop(outcome.target))
            if outcome.what == "unchanged":
                return
            took = f", {outcome.seconds:.1f} s" if outcome.seconds >= 0.05 else ""
            size = f"  {size_text(outcome.bytes)}" if outcome.bytes else ""
            self._print(f"{outcome.what:<9}{outcome.target}{size}{took}")

    def close(self) -> None:
        """End the live display; what still runs is not shown any more."""
        with self._lock:
            self._closed = True
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _show(self, target: str, message: str, done: int | None, total: int | None) -> None:
        if target not in self._tasks:
            self._tasks[target] = self._progress().add_task(target, total=None, message="")
        self._progress().update(self._tasks[target], message=printable(message), completed=done or 0, total=total)

    def _progress(self) -> Progress:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if self._live is None:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
            # A step's words are no markup.
            self._live = Progress(*columns, TextColumn("{task.fields[message]}", markup=False), transient=True)
            self._live.start()
        return self._live

    def _print(self, line: str) -> None:
        line = printable(line)
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
            return
        try:
            print(line, flush=True)
        except BrokenPipeError:
            fall_silent()


def fall_silent() -> None:
    """Go on without a reader, as after `doit | head -1`: standard output leads nowhere from here."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def size_text(size: float) -> str:
    """A number of bytes as a person reads it: decimal units, three digits."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def print_summary(outcomes: Iterable[Outcome], seconds: float) -> None:
    """The table that ends a run; a single line when there was nothing to do."""
    rows = list(outcomes)
    unchanged = sum(row.what == "unchanged" for row in rows)
    if unchanged == len(rows):
        said = "1 target, unchanged" if unchanged == 1 else f"{unchanged} targets, all unchanged"
        print(f"{said} ({seconds:.1f} s)")
        return
    console = _console()
    wers = {row.target: row.metrics for row in rows if any(name.startswith(WER_PREFIX) for name in row.metrics)}
    if wers:
        console.print(_wer_table(wers))
    console.print(_run_table(rows))
    for line in (*_measured_on(rows), *_exposed(rows)):
        print(line)
    counts = {what: sum(row.what == what for row in rows) for what in dict.fromkeys(row.what for row in rows)}
    print(f"{', '.join(f'{count} {what}' for what, count in counts.items())} ({seconds:.1f} s)")


def _measured_on(rows: list[Outcome]) -> list[str]:
    """On which processor the targets were measured that depend on it; with their names if there are several."""
    measured: dict[str, list[str]] = {}
    for row in rows:
        if row.measured_on:
            measured.setdefault(row.measured_on, []).append(row.target)
    if len(measured) == 1:
        return [f"measured on: {printable(processor)}" for processor in measured]
    return [f"measured on {printable(processor)}: {', '.join(targets)}" for processor, targets in measured.items()]


def _exposed(rows: list[Outcome]) -> list[str]:
    """Which sources are trusted with classes of their own, and what this kernel could not keep from steps."""
    trusted = dict.fromkeys(source for row in rows for source in row.trusts)
    lines = [f"trusted by its recipe, with classes of its own choice: {source}" for source in trusted]
    open_to = dict.fromkeys(what for row in rows for what in row.unconfined)
    if open_to:
        lines.append(
            f"WARNING: no sandbox for {' and '.join(open_to)}: this kernel has neither Landlock nor namespaces nor"
            " seccomp for it; build only from checkpoints that you trust"
        )
    return lines


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width of its own; 80 columns would cut the table's metrics off.
    return Console(width=None if sys.stdout.isatty() else 150, highlight=False, markup=False, emoji=False)


def _run_table(rows: list[Outcome]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("target", no_wrap=True)
    table.add_column("what happened", no_wrap=True)
    for title in ("size", "seconds", "peak memory"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("metrics", overflow="fold")
    for row in rows:
        seconds = f"{row.seconds:.1f}" if row.seconds >= 0.05 else ""
        peak = size_text(row.peak_bytes) if row.peak_bytes else ""
        shown = {name: value for name, value in row.metrics.items() if not name.startswith(WER_PREFIX)}
        metrics = printable(", ".join(f"{name} {_number(value)}" for name, value in list(shown.items())[:4]))
        table.add_row(row.target, row.what, size_text(row.bytes) if row.bytes else "", seconds, peak, metrics)
    return table


def _wer_table(wers: dict[str, dict[str, float | int | str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="word error rate, %, by slice", title_justify="left")
    table.add_column("slice", no_wrap=True)
    for target in wers:
        table.add_column(target, justify="right")
    slices = dict.fromkeys(name for metrics in wers.values() for name in metrics if name.startswith(WER_PREFIX))
    labels = {name: name.removeprefix(WER_PREFIX) for name in slices} | {"wer_percent": "all"}
    for name, label in labels.items():
        values = [metrics.get(name) for metrics in wers.values()]
        cells = [f"{value:.2f}" if isinstance(value, (int, float)) else "" for value in values]
        table.add_row(printable(label, 80), *cells)
    return table


def _number(value: float | int | str) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)

"""Tables that end a run: word error rates by slice, and a row for each target."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from artifacts.errors import printable
from artifacts.run.outcome import Outcome
from artifacts.store.journal import Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WER_PREFIX = "wer_percent_"


def size_text(size: float) -> str:
    """Return a number of bytes in decimal units, with three digits."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def print_summary(outcomes: Iterable[Outcome], seconds: float, headlines: Mapping[str, Sequence[str]]) -> None:
    """Print the tables of a run; a single line if all targets were unchanged.

    `headlines` names the metrics that the second table shows, by target.
    """
    rows = list(outcomes)
    unchanged = sum(row.status == Status.UNCHANGED for row in rows)
    if unchanged == len(rows):
        said = "1 target, unchanged" if unchanged == 1 else f"{unchanged} targets, all unchanged"
        print(f"{said} ({seconds:.1f} s)")
        return
    console = _console()
    wers = {row.target: row.metrics for row in rows if any(name.startswith(WER_PREFIX) for name in row.metrics)}
    if wers:
        console.print(_wer_table(wers))
    console.print(_run_table(rows, headlines))
    for line in (*_measured_on(rows), *_exposed(rows), *_skipped(rows)):
        print(line)
    counts = Counter(row.status for row in rows)
    print(f"{', '.join(f'{count} {status}' for status, count in counts.items())} ({seconds:.1f} s)")


def _measured_on(rows: list[Outcome]) -> list[str]:
    """Return the processors of the measurements; with the targets' names if there are several processors."""
    measured: dict[str, list[str]] = {}
    for row in rows:
        if row.measured_on:
            measured.setdefault(row.measured_on, []).append(row.target)
    if len(measured) == 1:
        return [f"measured on: {printable(processor)}" for processor in measured]
    return [f"measured on {printable(processor)}: {', '.join(targets)}" for processor, targets in measured.items()]


def _skipped(rows: list[Outcome]) -> list[str]:
    """Return the optional sources that are not there, each with the number of targets that were skipped for it."""
    needed = Counter(text for row in rows for text in row.absent)
    return [
        printable(
            f"skipped {count - 1} target{'s' if count > 2 else ''} without {text}" if count > 1 else f"skipped {text}"
        )
        for text, count in needed.items()
    ]


def _exposed(rows: list[Outcome]) -> list[str]:
    """Return the sources that may name any class, and what this kernel could not keep from steps."""
    trusted = dict.fromkeys(source for row in rows for source in row.trusts)
    lines = [f"trusted by its recipe (it may name any class): {source}" for source in trusted]
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


def _run_table(rows: list[Outcome], headlines: Mapping[str, Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("target", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for title in ("size", "seconds", "peak memory"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("metrics", overflow="fold")
    for row in rows:
        seconds = f"{row.seconds:.1f}" if row.seconds >= 0.05 else ""
        peak = size_text(row.peak_bytes) if row.peak_bytes else ""
        headline = [name for name in headlines.get(row.target, ()) if name in row.metrics]
        metrics = printable(", ".join(f"{name} {_number(row.metrics[name])}" for name in headline))
        table.add_row(row.target, row.status, size_text(row.bytes) if row.bytes else "", seconds, peak, metrics)
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

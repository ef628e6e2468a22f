"""Tables that end a run: word error rates by slice, and a row for each target."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from artifacts.errors import printable
from artifacts.run.outcome import Outcome
from artifacts.store.journal import Status

WER_PREFIX = "wer_percent_"
GAP = "  "
# A pipe has no width of its own. There, a row of the run table has any length, and so many slices stand side by side.
PIPE_COLUMNS = 150


def size_text(size: float) -> str:
    """Return a number of bytes in decimal units, with three digits."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun, which is `several` (by default with an s) unless there is one."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def print_summary(outcomes: Iterable[Outcome], seconds: float, headlines: Mapping[str, Sequence[str]]) -> None:
    """Print the tables of a run; a single line if all targets were unchanged.

    `headlines` names the metrics that the second table shows, by target.
    """
    rows = list(outcomes)
    unchanged = sum(row.status == Status.UNCHANGED for row in rows)
    if unchanged == len(rows):
        print(f"{counted(unchanged, 'target')}, {'all ' if unchanged != 1 else ''}unchanged ({seconds:.1f} s)")
        return
    width = _width()
    wers = {row.target: row.metrics for row in rows if any(name.startswith(WER_PREFIX) for name in row.metrics)}
    if wers:
        print(*_wer_tables(wers, width or PIPE_COLUMNS), sep="\n")
    print("", *_run_table(rows, headlines, width), "", sep="\n")
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
        printable(f"skipped {counted(count - 1, 'target')} without {text}" if count > 1 else f"skipped {text}")
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


def _width() -> int | None:
    """Return the columns of the terminal; None for a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _run_table(rows: list[Outcome], headlines: Mapping[str, Sequence[str]], width: int | None) -> list[str]:
    """Return a line for each target; its metrics follow on a line of their own where they do not fit beside it."""
    cells, metrics = [], []
    for row in rows:
        seconds = f"{row.seconds:.1f}" if row.seconds >= 0.05 else ""
        peak = size_text(row.peak_bytes) if row.peak_bytes else ""
        headline = [name for name in headlines.get(row.target, ()) if name in row.metrics]
        cells.append([row.target, row.status, size_text(row.bytes) if row.bytes else "", seconds, peak])
        metrics.append(printable(", ".join(f"{name} {_number(row.metrics[name])}" for name in headline)))
    titles = ["target", "status", "size", "seconds", "peak memory"]
    if not any(metrics):
        return _table(titles, cells, "<<>>>")
    beside = [[*row, text] for row, text in zip(cells, metrics, strict=True)]
    table = _table([*titles, "metrics"], beside, "<<>>><")
    if width is None or all(_columns(line) <= width for line in table):
        return table
    head, rule, *lines = _table(titles, cells, "<<>>>")
    below = [text for line, said in zip(lines, metrics, strict=True) for text in (line, f"    {said}") if text.strip()]
    return [head, rule, *below]


def _wer_tables(wers: Mapping[str, Mapping[str, float | int | str]], width: int) -> Iterator[str]:
    """Yield the lines of a table with a column for each target; of several tables where one is too wide."""
    slices = dict.fromkeys(name for metrics in wers.values() for name in metrics if name.startswith(WER_PREFIX))
    labels = {name: name.removeprefix(WER_PREFIX) for name in slices} | {"wer_percent": "all"}
    first = ["slice", *(printable(label, 80) for label in labels.values())]
    columns = [first]
    yield from ("", "word error rate, %, by slice")
    for target, metrics in wers.items():
        values = [metrics.get(name) for name in labels]
        column = [target, *(f"{value:.2f}" if isinstance(value, (int, float)) else "" for value in values)]
        if len(columns) > 1 and _columns(_side_by_side([*columns, column])[1]) > width:
            yield from ("", *_side_by_side(columns))
            columns = [first]
        columns.append(column)
    yield from ("", *_side_by_side(columns))


def _side_by_side(columns: list[list[str]]) -> list[str]:
    head, *rows = map(list, zip(*columns, strict=True))
    return _table(head, rows, "<" + ">" * (len(columns) - 1))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], aligned: str) -> list[str]:
    """Return the head, a rule, and the rows, without blanks at the ends. `aligned` has a `<` or `>` for each column."""
    lines = [head, *rows]
    widths = [max(map(_columns, column)) for column in zip(*lines, strict=True)]
    texts = []
    for line in lines:
        blanks = [" " * (width - _columns(cell)) for cell, width in zip(line, widths, strict=True)]
        cells = [
            cell + blank if side == "<" else blank + cell
            for cell, blank, side in zip(line, blanks, aligned, strict=True)
        ]
        texts.append(GAP.join(cells).rstrip())
    return [texts[0], _rule(max(map(_columns, texts))), *texts[1:]]


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _rule(width: int) -> str:
    try:
        "\N{BOX DRAWINGS LIGHT HORIZONTAL}".encode(sys.stdout.encoding or "ascii")
    except UnicodeError:
        return "-" * width
    return "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * width


def _number(value: float | int | str) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)

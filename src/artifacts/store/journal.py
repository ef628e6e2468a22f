"""The journal: one JSON line for each target that was built or restored, failed or was interrupted."""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

MOST_BYTES = 256_000_000
LINE_BYTES = 1_000_000


class Status(StrEnum):
    """Status of a target: what a run did, what a run would do, and what the journal records."""

    UNCHANGED = "unchanged"
    FOUND = "found"  # a source that is on this machine
    FETCHED = "fetched"  # in a dry run: a source that is not on this machine; a run says found
    RESTORED = "restored"  # from the store, without its step
    BUILT = "built"
    MAYBE_BUILT = "built?"  # in a dry run: it depends on bytes that are not built yet
    MISSING = "missing"  # in a dry run, as the next two: a source; a run says failed
    CHANGED = "changed"  # a source with other bytes than its pin
    REFUSED = "refused"  # a source that cannot be used for another reason
    SKIPPED = "skipped"  # an optional source is not there, or a target that needs it
    NOT_TRIED = "not tried"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Entry:
    """One line of the journal. `why` has the reasons why the step ran; `error` is the fact that ended it."""

    target: str
    outcome: Status
    key: str
    why: list[str] = field(default_factory=list)
    step: str = ""
    bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    error: str = ""
    at: str = ""

    @property
    def local_time(self) -> str:
        """`at` by the clock of this machine, to the minute; as it is written if it is not a time."""
        try:
            return f"{datetime.datetime.fromisoformat(self.at).astimezone():%Y-%m-%d %H:%M}"
        except (ValueError, OverflowError):
            return self.at


class Journal:
    """The journal of one cache folder. Lines are appended whole, by any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._peaks: dict[str, int] | None = None
        self._lock = threading.Lock()

    def write(self, entry: Entry) -> None:
        """Append an entry with the time (UTC)."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({**asdict(entry), "at": now}, ensure_ascii=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            is_torn = (
                end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            )  # a full disk or a crash cut the last line
            file.write(("\n" if is_torn else "").encode() + line.encode())
        with self._lock:
            self._note_peak(entry)

    def read(self) -> Iterator[Entry]:
        """Yield the entries, oldest first; of a journal of more than 256 MB, those in its newest 256 MB.

        A line that a crash cut off, or that no journal writes, is skipped.
        """
        for line in self._lines():
            try:
                fields = json.loads(line)
                entry = Entry(**{**fields, "outcome": Status(fields["outcome"])})
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if _has_right_types(entry):
                yield entry

    def last(self, target: str, *outcomes: Status) -> Entry | None:
        """Return the newest entry of a target, with one of these outcomes if any are named."""
        last = None
        for entry in self.read():
            if entry.target == target and (not outcomes or entry.outcome in outcomes):
                last = entry
        return last

    def newest(self) -> dict[str, Entry]:
        """Return the newest entry of each target."""
        return {entry.target: entry for entry in self.read()}

    def peak_bytes(self, target: str) -> int:
        """Return the most memory that a target took, 0 if none is recorded. The file is read once for all targets."""
        with self._lock:
            if self._peaks is None:
                self._peaks = {}
                for entry in self.read():
                    self._note_peak(entry)
            return self._peaks.get(target, 0)

    def _note_peak(self, entry: Entry) -> None:
        if self._peaks is not None and entry.peak_bytes > self._peaks.get(entry.target, 0):
            self._peaks[entry.target] = entry.peak_bytes

    def _lines(self) -> Iterator[bytes]:
        if not self.path.is_file():  # opening a named pipe would block
            return
        with self.path.open("rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - MOST_BYTES)
            file.seek(begin)
            is_whole = begin == 0  # else the first line began earlier
            while line := file.readline(LINE_BYTES):
                ends = line.endswith(b"\n")
                if is_whole and (ends or len(line) < LINE_BYTES):
                    yield line
                is_whole = ends


def _has_right_types(entry: Entry) -> bool:
    texts = (entry.target, entry.key, entry.step, entry.error, entry.at)
    numbers = (entry.bytes, entry.seconds, entry.peak_bytes)
    texts_and_why = [*texts, *entry.why] if isinstance(entry.why, list) else [None]
    return all(isinstance(text, str) for text in texts_and_why) and all(map(_is_amount, numbers))


def _is_amount(number: object) -> bool:
    """Return whether the value is a number in a plausible range: JSON may contain others."""
    return isinstance(number, (int, float)) and 0 <= number < 1e18

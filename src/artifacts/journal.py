"""What happened: one JSON line for each target that was built, restored, published or failed."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One line of the journal. `why` holds the reasons found before the step ran; `error` the fact that ended it."""

    target: str
    outcome: str
    key: str
    why: list[str] = field(default_factory=list)
    step: str = ""
    bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    error: str = ""
    at: str = ""


class Journal:
    """The journal of one cache folder. Lines are appended whole, by any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, entry: Entry) -> None:
        """Append an entry, stamped with the time (UTC)."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({**asdict(entry), "at": now}, ensure_ascii=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"  # a full disk or a crash cut the last line
            file.write(("\n" if torn else "").encode() + line.encode())

    def read(self) -> list[Entry]:
        """All entries, oldest first. A line cut off by a crash, or that is none of ours, is left out."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError, RecursionError):
                continue
            if _is_sound(entry):
                entries.append(entry)
        return entries

    def last(self, target: str, *outcomes: str) -> Entry | None:
        """The newest entry of a target, of these outcomes if any are named."""
        mine = (entry for entry in reversed(self.read()) if entry.target == target)
        return next((entry for entry in mine if not outcomes or entry.outcome in outcomes), None)


def _is_sound(entry: Entry) -> bool:
    texts = (entry.target, entry.outcome, entry.key, entry.step, entry.error, entry.at)
    numbers = (entry.bytes, entry.seconds, entry.peak_bytes)
    said = [*texts, *entry.why] if isinstance(entry.why, list) else [None]
    return all(isinstance(text, str) for text in said) and all(isinstance(number, (int, float)) for number in numbers)

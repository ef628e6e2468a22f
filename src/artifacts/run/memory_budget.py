"""Lets jobs run side by side as long as their memory fits together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from artifacts.run.control_groups import free_in_groups


class MemoryBudget:
    """So many bytes, lent to jobs. What does not fit waits; what is larger than everything runs alone."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = max(1, total_bytes)  # where nothing is free, jobs still run, one by one
        self._reserved = 0
        self._running = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, needed_bytes: int | None) -> Iterator[None]:
        """Hold `needed_bytes` while the body runs; a job of unknown need (None) takes all, and so runs alone."""
        share = self.total_bytes if needed_bytes is None else min(needed_bytes, self.total_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0 or self._reserved + share <= self.total_bytes)
            self._reserved += share
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= share
                self._running -= 1
                self._changed.notify_all()


def free_bytes() -> int:
    """Return what this machine can give now without swapping, and no more than the control groups around us allow."""
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    in_groups = free_in_groups()
    return available if in_groups is None else min(available, in_groups)

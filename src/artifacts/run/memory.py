"""Memory that steps may use together, and what the machine and its control groups leave free.

Control groups have version 1 or 2. A group's limit binds all groups below it, so every group from this process's own up
to the root counts.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class MemoryBudget:
    """Memory that jobs reserve while they run. A job that does not fit waits; one larger than all of it runs alone."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = max(1, total_bytes)  # if nothing is free, jobs still run, one by one
        self._reserved = 0
        self._running = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, needed_bytes: int | None) -> Iterator[None]:
        """Reserve `needed_bytes` while the block runs. A job of unknown need (None) reserves all, and so runs alone."""
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
    """Return the bytes that are free without swapping, but no more than the control groups of this process allow."""
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    in_groups = free_in_groups()
    return available if in_groups is None else min(available, in_groups)


PROC = Path("/proc")


@dataclass(frozen=True)
class _Names:
    """File names of a version: limit, usage, counter of reclaimable file pages, counter of kills."""

    limit: str
    usage: str
    inactive: str
    kills: str


_VERSIONS = {
    "cgroup": _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"),
    "cgroup2": _Names("memory.max", "memory.current", "inactive_file", "memory.events"),
}


def free_in_groups(proc: Path = PROC) -> int | None:
    """Return the bytes that the control groups of this process leave it; None if none of them has a limit."""
    free: int | None = None
    for folder, names in _groups(proc):
        with contextlib.suppress(OSError, ValueError):  # the root has no limit, and `max` is not a number
            limit, usage = (int((folder / name).read_text()) for name in (names.limit, names.usage))
            # Pages of files that were not used lately count as used, and the kernel frees them first.
            left = limit - usage + _counters(folder / "memory.stat").get(names.inactive, 0)
            free = left if free is None else min(free, left)
    return free


def kernel_kills(proc: Path = PROC) -> int:
    """Return how often the kernel killed a process because memory ran out: on this machine and in our groups."""
    counters = [_counters(proc / "vmstat"), *(_counters(folder / names.kills) for folder, names in _groups(proc))]
    return sum(counter.get("oom_kill", 0) for counter in counters)


def _groups(proc: Path) -> Iterator[tuple[Path, _Names]]:
    """Yield the folder of this process's own memory group, then those of the groups above it."""
    try:
        mounts = [line.split() for line in (proc / "self/mountinfo").read_text().splitlines()]
        memberships = [line.split(":", 2) for line in (proc / "self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for fields in mounts:
        dash = fields.index("-")
        kind, options = fields[dash + 1], fields[dash + 3].split(",")
        if kind not in _VERSIONS or (kind == "cgroup" and "memory" not in options):
            continue
        wanted = "memory" if kind == "cgroup" else ""
        for _, controllers, path in memberships:
            if wanted in controllers.split(","):
                # A container's own group is mounted as the root. Its path, as seen from outside, is not below that.
                root, mounted = Path(fields[3]), Path(fields[4])
                inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
                folder = mounted / inside
                yield folder, _VERSIONS[kind]
                while folder != mounted:
                    folder = folder.parent
                    yield folder, _VERSIONS[kind]


def _counters(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a file; none if it cannot be read."""
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

"""Control groups of version 1 and 2: how much memory they leave this process, and how often the kernel killed in them.

A group's limit binds all groups below it, so every group from this process's own up to the root counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
            # Pages of files that nobody has used lately count as used, and are given up first.
            left = limit - usage + _counters(folder / "memory.stat").get(names.inactive, 0)
            free = left if free is None else min(free, left)
    return free


def kernel_kills(proc: Path = PROC) -> int:
    """Return how often the kernel has killed a process for want of memory: on this machine and in our groups."""
    counters = [_counters(proc / "vmstat"), *(_counters(folder / names.kills) for folder, names in _groups(proc))]
    return sum(found.get("oom_kill", 0) for found in counters)


def _groups(proc: Path) -> Iterator[tuple[Path, _Names]]:
    """Yield the folders of this process's memory groups, its own first, then those around it."""
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
                # A container sees its own group mounted as the root; its path from outside is then not below it.
                root, mounted = Path(fields[3]), Path(fields[4])
                inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
                folder = mounted / inside
                yield folder, _VERSIONS[kind]
                while folder != mounted:
                    folder = folder.parent
                    yield folder, _VERSIONS[kind]


def _counters(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a file; none where it cannot be read."""
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

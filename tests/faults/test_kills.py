"""A run that is killed at any moment loses nothing, and the next one ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

from faults import kills, lengths


def test_what_is_killed_at_any_moment_loses_nothing_and_the_next_run_ends_well(tmp_path: Path, package: Path) -> None:
    lengths.need_strace()
    counts = kills.run(lengths.KILLS, lengths.SEED, tmp_path, package)
    lengths.tell("kills", counts)
    assert sum(counts.values()) == lengths.KILLS

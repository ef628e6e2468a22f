"""Whatever call of a build fails on a full or a broken disk, it is told, and the next build ends well."""

from __future__ import annotations

from pathlib import Path

from faults import disks, lengths


def test_each_write_of_a_build_may_fail_and_the_next_build_ends_well(tmp_path: Path, package: Path) -> None:
    lengths.need_strace()
    counts = disks.run(lengths.DISK_ERRORS, lengths.SEED, tmp_path, package)
    lengths.tell("disk errors", counts)
    injected = counts["ENOSPC"] + counts["EIO"]
    assert injected >= 0.9 * min(lengths.DISK_ERRORS, counts["calls"]), counts

"""A bit that flips anywhere is repaired or told, and no step's result is recorded that comes from it."""

from __future__ import annotations

from pathlib import Path

from faults import flips, lengths
from faults.own_disk import mounted
from small_server import FileServer


def test_a_flipped_bit_in_any_file_is_repaired_by_the_next_run(
    tmp_path: Path, package: Path, server: FileServer
) -> None:
    counts = flips.run(lengths.FLIPS, lengths.SEED, tmp_path, package, server)
    lengths.tell("flips", counts)
    assert sum(counts.values()) == lengths.FLIPS


def test_a_bit_that_rots_silently_spoils_nothing_else_and_is_repaired_after_verify(
    tmp_path: Path, package: Path, server: FileServer
) -> None:
    with mounted(tmp_path / "disk") as disk:
        counts = flips.run_rot(lengths.ROTS, lengths.SEED, disk, package, server)
    lengths.tell("silent rot", counts)
    assert sum(counts.values()) == lengths.ROTS

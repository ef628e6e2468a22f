"""What changes while a step reads it, also if it is put back, is told or does no harm."""

from __future__ import annotations

from pathlib import Path

from faults import edits, lengths


def test_what_is_edited_for_a_moment_while_a_step_reads_it_is_told_or_does_no_harm(
    tmp_path: Path, package: Path
) -> None:
    counts = edits.run(lengths.EDITS, lengths.SEED, tmp_path, package)
    lengths.tell("edits", counts)
    assert sum(counts.values()) == lengths.EDITS

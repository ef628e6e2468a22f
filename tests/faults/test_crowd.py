"""Many runs at once on one cache, edited and killed meanwhile, neither disturb nor block one another."""

from __future__ import annotations

from pathlib import Path

from faults import crowd, lengths


def test_a_crowd_of_runs_ends_in_what_a_clean_build_gives(tmp_path: Path, package: Path) -> None:
    counts = crowd.run(lengths.CROWD_SECONDS, lengths.SEED, tmp_path, package)
    lengths.tell("crowd", counts)
    assert counts["epochs"] >= 1

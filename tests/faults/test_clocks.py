"""An edit is noticed whatever clocks and times say, and times alone build nothing again."""

from __future__ import annotations

from pathlib import Path

from faults import clocks, lengths
from faults.own_disk import mounted


def test_an_edit_is_noticed_whatever_the_clocks_say(tmp_path: Path, package: Path) -> None:
    counts = clocks.run(lengths.CLOCKS, lengths.SEED, tmp_path, package)
    lengths.tell("clocks", counts)
    assert sum(counts.values()) == lengths.CLOCKS


def test_an_edit_is_noticed_within_one_tick_of_a_slow_clock(tmp_path: Path, package: Path) -> None:
    with mounted(tmp_path / "disk", whole_seconds=True) as disk:
        counts = clocks.run_slow_ticks(lengths.TICKS, lengths.SEED, disk.folder, package)
    lengths.tell("slow ticks", counts)
    assert sum(counts.values()) >= lengths.TICKS

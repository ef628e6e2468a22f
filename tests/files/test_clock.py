from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from artifacts.files.clock import COARSE_MARGIN, FINE_MARGIN, FOREIGN_MARGIN, SECOND, FileClock


def stamped(path: Path, changed: int, *, device: int | None = None) -> os.stat_result:
    """The stat of a file that was changed then; of another disk, if a device is given."""
    found = path.stat()
    values = list(found[:10])
    values[2] = found.st_dev if device is None else device
    times = {"st_atime_ns": changed, "st_mtime_ns": changed, "st_ctime_ns": changed}
    return os.stat_result(values, times)


def test_the_time_is_that_of_the_disk(tmp_path: Path) -> None:
    before = time.time_ns()
    now = FileClock(tmp_path).now()
    assert before - SECOND // 10 <= now <= time.time_ns() + SECOND // 10
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_made_the_time_is_this_machines_less_a_margin(tmp_path: Path) -> None:
    now = FileClock(tmp_path / "nowhere").now()
    assert FOREIGN_MARGIN <= time.time_ns() - now < FOREIGN_MARGIN + SECOND


@pytest.mark.parametrize(
    ("ago", "part", "on_other_disk", "holds"),
    [
        (FINE_MARGIN * 2, 7, False, True),
        (FINE_MARGIN // 2, 7, False, False),
        (FINE_MARGIN * 2, 0, False, False),
        (COARSE_MARGIN + 2 * SECOND, 0, False, True),
        (COARSE_MARGIN + 2 * SECOND, 7, True, False),
        (FOREIGN_MARGIN + 2 * SECOND, 7, True, True),
        (-FINE_MARGIN // 2, 7, False, False),
        (-10 * SECOND, 7, False, True),  # stamped before the clock was set back
        (-10 * SECOND, 7, True, False),
    ],
)
def test_a_digest_holds_where_any_change_since_would_have_another_stamp(
    tmp_path: Path, ago: int, part: int, on_other_disk: bool, holds: bool
) -> None:
    clock = FileClock(tmp_path)
    now = clock.now()
    stamp = now - ago
    stamp = stamp // SECOND * SECOND if part == 0 else stamp // SECOND * SECOND + max(stamp % SECOND, part)
    device = 12345 if on_other_disk else None
    assert clock.holds(stamped(tmp_path, stamp, device=device), now) == holds


def test_a_digest_noted_in_the_future_does_not_hold(tmp_path: Path) -> None:
    clock = FileClock(tmp_path)
    stat = stamped(tmp_path, clock.now() - 1000 * SECOND)
    assert clock.holds(stat, clock.now())
    assert not clock.holds(stat, clock.now() + 100 * SECOND)


def test_a_digest_noted_before_a_stamp_in_the_future_holds_until_then(tmp_path: Path) -> None:
    clock = FileClock(tmp_path)
    noted = clock.now()
    stat = stamped(tmp_path, noted + SECOND // 2 + 7)
    assert clock.holds(stat, noted)
    time.sleep(0.7)
    assert not clock.holds(stat, noted), "a change at that very time would have had the same stamp"

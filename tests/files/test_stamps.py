from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from artifacts.files.stamps import (
    COARSE_MARGIN,
    FINE_MARGIN,
    FOREIGN_MARGIN,
    SECOND,
    FileClock,
    digest_stamps,
    raise_error,
    stamps_of,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a folder in it with another, and a link to that."""
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "one.txt").write_text("one")
    (folder / "inner" / "two.txt").write_text("two")
    (folder / "link.txt").symlink_to("inner/two.txt")
    return folder


def test_there_is_a_stamp_of_each_file_and_folder(folder: Path) -> None:
    names = {str(path.relative_to(folder)) for path in stamps_of(folder)}
    assert names == {".", "one.txt", "inner", "inner/two.txt", "link.txt"}
    assert list(stamps_of(folder / "one.txt")) == [folder / "one.txt"]


def test_stamps_are_the_same_with_and_without_opening(folder: Path) -> None:
    assert stamps_of(folder) == stamps_of(folder, opened=False)


def test_a_file_that_was_replaced_and_put_back_has_another_stamp(folder: Path) -> None:
    before = stamps_of(folder)
    (folder / "one.txt").rename(folder / "aside")
    (folder / "aside").rename(folder / "one.txt")
    assert digest_stamps(stamps_of(folder)) != digest_stamps(before)


def test_another_file_behind_the_same_path_has_another_stamp(folder: Path) -> None:
    before = digest_stamps(stamps_of(folder / "inner" / "two.txt"))
    (folder / "inner").rename(folder / "aside")
    (folder / "inner").mkdir()
    (folder / "inner" / "two.txt").write_text("two")
    assert digest_stamps(stamps_of(folder / "inner" / "two.txt")) != before


def test_one_file_has_one_digest_by_a_relative_and_by_an_absolute_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert digest_stamps(stamps_of(Path("folder"))) == digest_stamps(stamps_of(folder))


def test_names_that_are_not_utf_8_have_a_digest(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("x")
    assert len(digest_stamps(stamps_of(tmp_path))) == 64


def test_an_unreadable_folder_is_not_an_empty_one(folder: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        raise_error(OSError(errno.EIO, "Input/output error", str(folder)))
    raise_error(OSError(errno.ENOTDIR, "Not a directory", str(folder / "one.txt")))


def stamped(path: Path, changed: int, *, device: int | None = None) -> os.stat_result:
    """Return the stat of a file that was changed at a time; on another disk if `device` is set."""
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
    assert clock.is_unchanged(stamped(tmp_path, stamp, device=device), now) == holds


def test_a_digest_noted_in_the_future_does_not_hold(tmp_path: Path) -> None:
    clock = FileClock(tmp_path)
    stat = stamped(tmp_path, clock.now() - 1000 * SECOND)
    assert clock.is_unchanged(stat, clock.now())
    assert not clock.is_unchanged(stat, clock.now() + 100 * SECOND)


def test_a_digest_noted_before_a_stamp_in_the_future_holds_until_then(tmp_path: Path) -> None:
    clock = FileClock(tmp_path)
    noted = clock.now()
    stat = stamped(tmp_path, noted + SECOND // 2 + 7)
    assert clock.is_unchanged(stat, noted)
    time.sleep(0.7)
    assert not clock.is_unchanged(stat, noted), "a change at that very time would have had the same stamp"

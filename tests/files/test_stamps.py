from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from artifacts.files.stamps import digest_stamps, raise_error, stamps_of


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


def test_names_that_are_no_utf_8_have_a_digest(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("x")
    assert len(digest_stamps(stamps_of(tmp_path))) == 64


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(folder: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        raise_error(OSError(errno.EIO, "Input/output error", str(folder)))
    raise_error(OSError(errno.ENOTDIR, "Not a directory", str(folder / "one.txt")))

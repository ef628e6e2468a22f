from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifacts.files.copy import copy_file


@pytest.mark.parametrize("size", [0, 1, 5_000_001])
def test_a_copy_has_the_same_bytes_and_is_a_file_of_its_own(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(os.urandom(size))
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").stat().st_ino != (tmp_path / "a").stat().st_ino
    assert (tmp_path / "b").stat().st_nlink == 1


def test_a_copy_of_a_read_only_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "a").chmod(0o444)
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").stat().st_mode & 0o200


def test_between_two_disks_the_bytes_are_copied_too(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    source = shared / f"copy-{os.getpid()}"
    try:
        source.write_bytes(bytes(range(256)) * 10_000)
        copy_file(source, tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == source.read_bytes()
    finally:
        source.unlink()


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "b"

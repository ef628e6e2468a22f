from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.store.store import manifest_of
from artifacts.store.target_link import Pointer

ONE, TWO = manifest_of({"a": (1, "1")}), manifest_of({"a": (1, "2")})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The files of two artifacts."""
    found = [tmp_path / "artifacts" / name / "files" for name in ("one", "two")]
    for index, folder in enumerate(found):
        folder.mkdir(parents=True)
        (folder / "a").write_text(str(index))
    return found


def test_a_path_shows_the_artifact_that_the_target_is_now(tmp_path: Path, files: list[Path]) -> None:
    pointer = Pointer(tmp_path, "tiny", "encoder.fp32")
    assert pointer.key is None
    assert not pointer.shows(files[0], ONE)
    pointer.point("k1", files[0], ONE)
    assert pointer.shows(files[0], ONE)
    assert (tmp_path / "tiny" / "encoder.fp32" / "a").read_text() == "0"
    pointer.point("k2", files[1], TWO)
    assert not pointer.shows(files[0], ONE)
    assert pointer.shows(files[1], TWO)
    assert Pointer(tmp_path, "tiny", "encoder.fp32").key == "k2"
    assert (tmp_path / "tiny" / "encoder.fp32" / "a").read_text() == "1"
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [".state", "encoder.fp32"]


def test_a_cache_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "artifacts" / "one" / "files").mkdir(parents=True)
    Pointer(cache, "tiny", "t").point("k", cache / "artifacts" / "one" / "files", ONE)
    moved = cache.rename(tmp_path / "elsewhere")
    assert Pointer(moved, "tiny", "t").shows(moved / "artifacts" / "one" / "files", ONE)


def test_a_manifest_that_says_the_same_is_left_untouched(tmp_path: Path, files: list[Path]) -> None:
    pointer = Pointer(tmp_path, "tiny", "t")
    pointer.point("k1", files[0], ONE)
    before = pointer.manifest_file.stat().st_ino
    pointer.point("k2", files[0], ONE)
    assert pointer.manifest_file.stat().st_ino == before
    assert pointer.key == "k2"


def test_a_file_in_the_way_is_replaced_and_a_folder_is_not(tmp_path: Path, files: list[Path]) -> None:
    pointer = Pointer(tmp_path, "tiny", "t")
    pointer.link.parent.mkdir()
    pointer.link.write_text("in the way")
    pointer.point("k", files[0], ONE)
    assert pointer.shows(files[0], ONE)
    pointer.link.unlink()
    pointer.link.mkdir()
    with pytest.raises(StoreError, match="is a folder where a link belongs"):
        pointer.point("k", files[0], ONE)


def test_a_key_that_is_no_key_is_none_of_ours(tmp_path: Path, files: list[Path]) -> None:
    pointer = Pointer(tmp_path, "tiny", "t")
    pointer.point("k", files[0], ONE)
    for odd in (b"\xff\x00", b"", b"k\n", b"../k", b"k" * 65, b"k" * 1_000_000, b"k\x00"):
        pointer.manifest_file.with_name("t.key").write_bytes(odd)
        assert pointer.key is None


def test_state_that_is_no_file_is_none_of_ours(tmp_path: Path, files: list[Path]) -> None:
    pointer = Pointer(tmp_path, "tiny", "t")
    pointer.manifest_file.parent.mkdir(parents=True)
    for path in (pointer.manifest_file, pointer.manifest_file.with_name("t.key")):
        os.mkfifo(path)
    assert pointer.key is None
    assert not pointer.shows(files[0], ONE)
    pointer.point("k", files[0], ONE)
    assert pointer.key == "k"
    assert pointer.shows(files[0], ONE)


def test_a_removed_target_leaves_its_artifact(tmp_path: Path, files: list[Path]) -> None:
    pointer = Pointer(tmp_path, "tiny", "t")
    pointer.point("k", files[0], ONE)
    pointer.remove()
    pointer.remove()
    assert not pointer.link.is_symlink()
    assert list(pointer.manifest_file.parent.iterdir()) == []
    assert (files[0] / "a").exists()

from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.store.records import manifest_of
from artifacts.store.target_link import TargetLink

ONE, TWO = manifest_of({"a": (1, "1")}), manifest_of({"a": (1, "2")})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The files of two artifacts."""
    found = [tmp_path / "artifacts" / name / "files" for name in ("one", "two")]
    for index, folder in enumerate(found):
        folder.mkdir(parents=True)
        (folder / "a").write_text(str(index))
    return found


def test_a_path_shows_the_target_s_artifact(tmp_path: Path, files: list[Path]) -> None:
    link = TargetLink(tmp_path, "tiny", "encoder.fp32")
    assert link.key is None
    assert not link.shows(files[0], ONE)
    link.point("k1", files[0], ONE)
    assert link.shows(files[0], ONE)
    assert (tmp_path / "tiny" / "encoder.fp32" / "a").read_text() == "0"
    link.point("k2", files[1], TWO)
    assert not link.shows(files[0], ONE)
    assert link.shows(files[1], TWO)
    assert TargetLink(tmp_path, "tiny", "encoder.fp32").key == "k2"
    assert (tmp_path / "tiny" / "encoder.fp32" / "a").read_text() == "1"
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [".state", "encoder.fp32"]


def test_a_cache_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "artifacts" / "one" / "files").mkdir(parents=True)
    TargetLink(cache, "tiny", "t").point("k", cache / "artifacts" / "one" / "files", ONE)
    moved = cache.rename(tmp_path / "elsewhere")
    assert TargetLink(moved, "tiny", "t").shows(moved / "artifacts" / "one" / "files", ONE)


def test_a_manifest_that_says_the_same_is_left_untouched(tmp_path: Path, files: list[Path]) -> None:
    link = TargetLink(tmp_path, "tiny", "t")
    link.point("k1", files[0], ONE)
    before = link.manifest_file.stat().st_ino
    link.point("k2", files[0], ONE)
    assert link.manifest_file.stat().st_ino == before
    assert link.key == "k2"


def test_a_file_in_the_way_is_replaced_and_a_folder_is_not(tmp_path: Path, files: list[Path]) -> None:
    link = TargetLink(tmp_path, "tiny", "t")
    link.path.parent.mkdir()
    link.path.write_text("in the way")
    link.point("k", files[0], ONE)
    assert link.shows(files[0], ONE)
    link.path.unlink()
    link.path.mkdir()
    with pytest.raises(StoreError, match="is a folder where a link belongs"):
        link.point("k", files[0], ONE)


def test_a_malformed_key_is_ignored(tmp_path: Path, files: list[Path]) -> None:
    link = TargetLink(tmp_path, "tiny", "t")
    link.point("k", files[0], ONE)
    for odd in (b"\xff\x00", b"", b"k\n", b"../k", b"k" * 65, b"k" * 1_000_000, b"k\x00"):
        link.manifest_file.with_name("t.key").write_bytes(odd)
        assert link.key is None


def test_state_that_is_not_a_file_is_ignored(tmp_path: Path, files: list[Path]) -> None:
    link = TargetLink(tmp_path, "tiny", "t")
    link.manifest_file.parent.mkdir(parents=True)
    for path in (link.manifest_file, link.manifest_file.with_name("t.key")):
        os.mkfifo(path)
    assert link.key is None
    assert not link.shows(files[0], ONE)
    link.point("k", files[0], ONE)
    assert link.key == "k"
    assert link.shows(files[0], ONE)


def test_a_removed_target_leaves_its_artifact(tmp_path: Path, files: list[Path]) -> None:
    link = TargetLink(tmp_path, "tiny", "t")
    link.point("k", files[0], ONE)
    link.remove()
    link.remove()
    assert not link.path.is_symlink()
    assert list(link.manifest_file.parent.iterdir()) == []
    assert (files[0] / "a").exists()

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.digest import digest_file
from artifacts.publish import is_published, publish
from artifacts.store import Manifest, Store, manifest_of


def artifact(folder: Path, files: dict[str, bytes]) -> tuple[Path, Manifest]:
    """A folder of read-only files, and its manifest."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
    return folder, manifest_of({name: (len(data), digest_file(folder / name)) for name, data in files.items()})


def test_a_layout_is_a_copy_without_links(tmp_path: Path) -> None:
    files, manifest = artifact(tmp_path / "a", {"model.onnx": b"m", "sub/tokens.txt": b"t"})
    place, store = tmp_path / "dist" / "tiny" / "onnx-asr", Store(tmp_path / "cache")
    assert not is_published(store, place, manifest)
    publish(files, manifest, place)
    assert is_published(store, place, manifest)
    for path in (place / "model.onnx", place / "sub" / "tokens.txt"):
        assert not path.is_symlink()
        assert path.stat().st_nlink == 1
    assert [path.name for path in place.parent.iterdir()] == ["onnx-asr"]


def test_a_new_layout_replaces_the_old_one_whole(tmp_path: Path) -> None:
    place, store = tmp_path / "dist" / "flat", Store(tmp_path / "cache")
    publish(*artifact(tmp_path / "a", {"old": b"1", "both": b"1"}), place)
    files, manifest = artifact(tmp_path / "b", {"new": b"2", "both": b"2"})
    assert not is_published(store, place, manifest)
    publish(files, manifest, place)
    assert is_published(store, place, manifest)
    assert sorted(path.name for path in place.iterdir()) == ["both", "new"]


def test_a_layout_that_cannot_be_copied_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "dist" / "flat"
    publish(*artifact(tmp_path / "a", {"old": b"1"}), place)
    files, manifest = artifact(tmp_path / "b", {"first": b"2", "then": b"2"})
    (files / "then").unlink()
    with pytest.raises(FileNotFoundError):
        publish(files, manifest, place)
    assert [path.name for path in place.parent.iterdir()] == ["flat"]
    assert (place / "old").read_bytes() == b"1"


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "dist" / "flat"
    left = place.parent / ".flat.publishing.xyz" / "new"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    publish(*artifact(tmp_path / "a", {"f": b"1"}), place)
    assert [path.name for path in place.parent.iterdir()] == ["flat"]


def test_a_link_in_the_place_of_a_layout_is_replaced_and_not_followed(tmp_path: Path) -> None:
    place = tmp_path / "dist" / "flat"
    place.parent.mkdir()
    place.symlink_to(tmp_path / "nowhere")
    publish(*artifact(tmp_path / "a", {"f": b"1"}), place)
    assert not place.is_symlink()
    assert (place / "f").read_bytes() == b"1"

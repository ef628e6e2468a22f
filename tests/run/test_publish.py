from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifacts.digest import digest_file
from artifacts.run.publish import is_published, publish
from artifacts.store.records import Manifest, manifest_of
from artifacts.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a memory of digests."""
    return Store(tmp_path / "cache")


def artifact(folder: Path, files: dict[str, bytes]) -> tuple[Path, Manifest]:
    """A folder of read-only files, and its manifest."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
    return folder, manifest_of({name: (len(data), digest_file(folder / name)) for name, data in files.items()})


def test_a_layout_is_a_copy_without_links(tmp_path: Path, store: Store) -> None:
    files, manifest = artifact(tmp_path / "a", {"model.onnx": b"m", "sub/tokens.txt": b"t"})
    place = tmp_path / "dist" / "tiny" / "onnx-asr"
    assert not is_published(store, place, manifest)
    publish(store, files, manifest, place)
    assert is_published(store, place, manifest)
    for path in (place / "model.onnx", place / "sub" / "tokens.txt"):
        assert not path.is_symlink()
        assert path.stat().st_nlink == 1
    assert [path.name for path in place.parent.iterdir()] == ["onnx-asr"]


def test_a_new_layout_replaces_the_old_one_whole(tmp_path: Path, store: Store) -> None:
    place = tmp_path / "dist" / "flat"
    publish(store, *artifact(tmp_path / "a", {"old": b"1", "both": b"1"}), place)
    files, manifest = artifact(tmp_path / "b", {"new": b"2", "both": b"2"})
    assert not is_published(store, place, manifest)
    publish(store, files, manifest, place)
    assert is_published(store, place, manifest)
    assert sorted(path.name for path in place.iterdir()) == ["both", "new"]


def test_a_layout_that_cannot_be_copied_leaves_the_old_one_and_nothing_else(tmp_path: Path, store: Store) -> None:
    place = tmp_path / "dist" / "flat"
    publish(store, *artifact(tmp_path / "a", {"old": b"1"}), place)
    files, manifest = artifact(tmp_path / "b", {"first": b"2", "then": b"2"})
    (files / "then").unlink()
    with pytest.raises(FileNotFoundError):
        publish(store, files, manifest, place)
    assert [path.name for path in place.parent.iterdir()] == ["flat"]
    assert (place / "old").read_bytes() == b"1"


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path, store: Store) -> None:
    place = tmp_path / "dist" / "flat"
    left = place.parent / ".flat.abcd1234.unfinished" / "new"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    publish(store, *artifact(tmp_path / "a", {"f": b"1"}), place)
    assert [path.name for path in place.parent.iterdir()] == ["flat"]


def test_a_copy_that_differs_from_the_manifest_is_not_laid_out(tmp_path: Path, store: Store) -> None:
    place = tmp_path / "dist" / "flat"
    assert publish(store, *artifact(tmp_path / "a", {"f": b"1"}), place) is None
    files, manifest = artifact(tmp_path / "b", {"f": b"good", "g": b"g"})
    (files / "f").chmod(0o644)
    (files / "f").write_bytes(b"rots")
    assert publish(store, files, manifest, place) == "'f' has other bytes than its manifest says"
    assert (place / "f").read_bytes() == b"1"
    assert [path.name for path in place.parent.iterdir()] == ["flat"]


def test_a_copy_is_not_hashed_a_second_time(tmp_path: Path, store: Store) -> None:
    files, manifest = artifact(tmp_path / "a", {"f": os.urandom(200_000_000)})
    publish(store, files, manifest, tmp_path / "dist" / "flat")
    read: list[Path] = []
    store.memory.remember(tmp_path / "dist" / "flat" / "f", "sha256", read.append)
    assert not read


def test_a_link_instead_of_a_layout_is_replaced_and_not_followed(tmp_path: Path, store: Store) -> None:
    place = tmp_path / "dist" / "flat"
    place.parent.mkdir()
    place.symlink_to(tmp_path / "nowhere")
    publish(store, *artifact(tmp_path / "a", {"f": b"1"}), place)
    assert not place.is_symlink()
    assert (place / "f").read_bytes() == b"1"

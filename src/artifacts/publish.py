"""Lays out a finished artifact under `dist/<recipe>/<layout>/`: whole or not at all, and without links."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from pathlib import Path

from artifacts.copy_file import copy_file
from artifacts.store import Manifest, Store, sync

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)


def is_published(store: Store, place: Path, manifest: Manifest) -> bool:
    """Whether `place` holds just what the manifest lists."""
    return place.is_dir() and store.difference(place, manifest) is None


def publish(files: Path, manifest: Manifest, place: Path) -> None:
    """Replace the folder `place` by a copy of an artifact's files. Until the copy is whole, `place` stays as it is.

    The caller sees to it that nobody else publishes there: what a killed run left beside `place` is removed.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f".{place.name}.publishing.*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.publishing.", dir=place.parent) as folder:
        copy = Path(folder) / "new"
        for name in manifest["files"]:
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(files / name, target)
        for written in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            sync(written)
        if not (place.exists() or place.is_symlink()):
            copy.rename(place)
        elif not _exchange(copy, place):
            place.rename(Path(folder) / "old")
            copy.rename(place)
        sync(place.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Give two paths each other's names in one move; False where the kernel or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0

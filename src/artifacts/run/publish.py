"""Lays out a finished artifact under `dist/<recipe>/<layout>/`: whole or not at all, and without links."""

from __future__ import annotations

import ctypes
from pathlib import Path

from artifacts.files.atomic import sync, unfinished_folder
from artifacts.files.copy import copy_file
from artifacts.store.records import Manifest
from artifacts.store.store import ROTTEN, Store

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)


def is_published(store: Store, place: Path, manifest: Manifest) -> bool:
    """Whether `place` holds just what the manifest lists."""
    return place.is_dir() and store.difference(place, manifest) is None


def publish(store: Store, files: Path, manifest: Manifest, place: Path) -> str | None:
    """Replace the folder `place` by a copy of an artifact's files. Until the copy is whole, `place` stays as it is.

    The copy is hashed. Where it differs from the manifest, `place` stays as it is, and what differs is returned.
    The caller holds the layout's lock: what a killed run left beside `place` is removed. Raises OSError.
    """
    with unfinished_folder(place) as folder:
        copy = folder / "new"
        for name in manifest.files:
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                copy_file(files / name, target)
            except OSError as error:
                if error.errno not in ROTTEN:
                    raise
                return f"'{name}' cannot be copied: {error.strerror}"
        difference = store.difference(copy, manifest, anew=True)
        if difference is not None:
            return difference
        for written in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            sync(written)
        if not (place.exists() or place.is_symlink()):
            copy.rename(place)
        elif not _exchange(copy, place):
            place.rename(folder / "old")
            copy.rename(place)
        sync(place.parent)
    return None


def _exchange(one: Path, other: Path) -> bool:
    """Give two paths each other's names in one move; False where the kernel or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0

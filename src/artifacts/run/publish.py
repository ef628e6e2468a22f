"""Copy a finished artifact to `dist/<recipe>/<layout>/`: whole or not at all, and without links."""

from __future__ import annotations

import ctypes
from pathlib import Path

from artifacts.files.atomic import sync, unfinished_folder
from artifacts.files.copy import copy_file
from artifacts.store.records import Manifest
from artifacts.store.store import ROTTEN, Store

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)


def is_published(store: Store, folder: Path, manifest: Manifest) -> bool:
    """Return whether a folder contains exactly the files of the manifest."""
    return folder.is_dir() and store.difference(folder, manifest) is None


def publish(store: Store, files: Path, manifest: Manifest, folder: Path) -> str | None:
    """Replace a folder by a copy of an artifact's files. Until the copy is whole, the folder stays as it is.

    The copy is hashed. If it differs from the manifest, the folder stays as it is, and the difference is returned.
    The caller holds the layout's lock: leftovers of a killed run beside the folder are removed. Raises OSError.
    """
    with unfinished_folder(folder) as unfinished:
        copy = unfinished / "new"
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
        if not (folder.exists() or folder.is_symlink()):
            copy.rename(folder)
        elif not _exchange(copy, folder):
            folder.rename(unfinished / "old")
            copy.rename(folder)
        sync(folder.parent)
    return None


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two paths in one move. Return False if the kernel or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0

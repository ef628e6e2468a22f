"""Stamps of a file or folder: they show that it was touched, even if its old content was put back."""

from __future__ import annotations

import os
from pathlib import Path

from artifacts.digest import digest_json

# Device, inode, size, mtime and ctime of each file and folder: first of the link itself, then of its target.
Stamps = dict[Path, tuple[int, ...]]


def stamps_of(path: Path, *, opened: bool = True) -> Stamps:
    """Return the stamps of a file, or of a folder and all below it. Raises OSError, also for an unreadable folder.

    With `opened`, each file is opened, so that a file server sends its stamps: a stat alone may be a minute old.
    """
    stamps = {path: _stamp(path, opened)}
    for parent, folders, names in os.walk(path, onerror=raise_error):
        for name in (*folders, *names):
            inner = Path(parent, name)
            stamps[inner] = _stamp(inner, opened)
    return stamps


def digest_stamps(stamps: Stamps) -> str:
    """Return one SHA-256 for all stamps of a file or folder; the path to it does not matter."""
    root = next(iter(stamps))
    return digest_json(
        sorted([os.fsencode(path.relative_to(root)).hex(), *of_path] for path, of_path in stamps.items())
    )


def raise_error(error: OSError) -> None:
    """Raise the error of an unreadable folder, which `os.walk` would skip as if the folder were empty."""
    if Path(error.filename).is_dir():  # a file is not an error: it has nothing below it
        raise error


def _stamp(path: Path, opened: bool) -> tuple[int, ...]:
    if opened:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            stats = (path.lstat(), os.fstat(handle))
        finally:
            os.close(handle)
    else:
        stats = (path.lstat(), path.stat())
    return tuple(
        part for one in stats for part in (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
    )

"""Stamps of a file or folder: they show that it was touched, also if it was put back since."""

from __future__ import annotations

import os
from pathlib import Path

from artifacts.digest import digest_json

# Device, inode, size, mtime and ctime of each file and folder: of a link's own, then of what it leads to.
Stamps = dict[Path, tuple[int, ...]]


def stamps_of(path: Path, *, opened: bool = True) -> Stamps:
    """The stamps of a file, or of a folder and all below it. Raises OSError, also for a folder that cannot be read.

    An open asks a network's server for the stamps: those that a stat alone gives may be a minute old.
    """
    stamps = {path: _stamp(path, opened)}
    for parent, folders, names in os.walk(path, onerror=raise_error):
        for name in (*folders, *names):
            inner = Path(parent, name)
            stamps[inner] = _stamp(inner, opened)
    return stamps


def digest_stamps(stamps: Stamps) -> str:
    """One sha256 for all stamps of a file or folder, by whichever path it was reached."""
    root = next(iter(stamps))
    return digest_json(
        sorted([os.fsencode(path.relative_to(root)).hex(), *of_path] for path, of_path in stamps.items())
    )


def raise_error(error: OSError) -> None:
    """Raise what `os.walk` would pass over: a folder that cannot be read is not an empty one."""
    if Path(error.filename).is_dir():  # and not a file, which has nothing below it
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

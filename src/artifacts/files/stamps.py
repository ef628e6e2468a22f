"""Stamps of files: what shows that one was touched, and the clock by which a file system writes them.

Two changes within one tick leave the same stamp. Ticks last up to 2 s (FAT), 1 s (ext3, HFS+) or 10 ms, and a server's
clock may differ from this machine's.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from artifacts.digest import digest_json

# Device, inode, size, mtime and ctime of each file and folder: first those of a link itself, then of its target.
Stamps = dict[Path, tuple[int, ...]]


def stamps_of(path: Path, *, opened: bool = True) -> Stamps:
    """Return the stamps of a file, or of a folder and all below it. Raises OSError, also for an unreadable folder.

    Opening a file gets its stamps from a network disk's server; those of a stat alone may be a minute old.
    """
    stamps = {path: _stamp(path, opened)}
    for parent, folders, names in os.walk(path, onerror=raise_error):
        for name in (*folders, *names):
            inner = Path(parent, name)
            stamps[inner] = _stamp(inner, opened)
    return stamps


def digest_stamps(stamps: Stamps) -> str:
    """Return one sha256 of all stamps of a file or folder. It does not depend on the path that led there."""
    root = next(iter(stamps))
    return digest_json(
        sorted([os.fsencode(path.relative_to(root)).hex(), *of_path] for path, of_path in stamps.items())
    )


def raise_error(error: OSError) -> None:
    """Raise an error that `os.walk` would ignore, because an unreadable folder is not an empty one."""
    if Path(error.filename).is_dir():  # not for a file, which os.walk tries to list too
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


SECOND = 10**9
FINE_MARGIN = SECOND // 10
# Margin of a stamp in whole seconds, which a file system with long ticks gives.
COARSE_MARGIN = 5 * SECOND // 2
# Margin of a disk whose clock cannot be read: the assumed bound on the difference of two machines' clocks.
FOREIGN_MARGIN = 60 * SECOND


class FileClock:
    """The clock of the disk that contains a folder. Times are nanoseconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._latest = 0
        self._is_readable = True
        self._device: int | None = None

    def now(self) -> int:
        """Return the disk's time: the stamp of a new file. If none can be made: this machine's time, less a margin."""
        try:
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                self._latest = os.fstat(file.fileno()).st_ctime_ns
        except OSError:
            self._is_readable = False
            self._latest = time.time_ns() - FOREIGN_MARGIN
        return self._latest

    def before(self, stat: os.stat_result) -> int:
        """Return a time before now at which a file had these stamps: the disk's last known time, if usable."""
        return self._latest if self._latest and self.is_unchanged(stat, self._latest) else self.now()

    def is_unchanged(self, stat: os.stat_result, noted: int) -> bool:
        """Return whether a file with these stamps has the bytes of the time `noted`: a change alters the stamps.

        False if a change could have got the same stamp, or if `noted` is in the future because the clock was set back.
        A clock that is set back and passes the same tick again cannot be detected by a stat.
        """
        if self._latest < noted and self.now() < noted:
            return False
        return all(self._is_past_or_future(stat, stamp, noted) for stamp in (stat.st_ctime_ns, stat.st_mtime_ns))

    def _is_past_or_future(self, stat: os.stat_result, stamp: int, noted: int) -> bool:
        """Return whether all changes from `noted` to now have later stamps than `stamp`, or all have earlier ones."""
        margin = COARSE_MARGIN if stamp % SECOND == 0 else FINE_MARGIN
        if self._device is None:
            self._device = self._folder.stat().st_dev if self._folder.exists() else -1
        if stat.st_dev != self._device:
            margin = max(margin, FOREIGN_MARGIN)
        return stamp + margin < noted or (self._is_readable and self.now() + margin < stamp)

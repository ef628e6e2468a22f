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


SECOND = 10**9
FINE_MARGIN = SECOND // 10
# Of a stamp in whole seconds, which a file system with long ticks gives.
COARSE_MARGIN = 5 * SECOND // 2
# Of a disk whose clock cannot be read: the most that the clocks of two machines are taken to differ by.
FOREIGN_MARGIN = 60 * SECOND


class FileClock:
    """The clock of the disk that contains a folder. Times are nanoseconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._latest = 0
        self._is_readable = True
        self._device: int | None = None

    def now(self) -> int:
        """The disk's time: the stamp of a file made now. Where none can be made, this machine's, less a margin."""
        try:
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                self._latest = os.fstat(file.fileno()).st_ctime_ns
        except OSError:
            self._is_readable = False
            self._latest = time.time_ns() - FOREIGN_MARGIN
        return self._latest

    def before(self, stat: os.stat_result) -> int:
        """A time before now at which a file had these stamps: the last that was asked for, where it will do."""
        return self._latest if self._latest and self.holds(stat, self._latest) else self.now()

    def holds(self, stat: os.stat_result, noted: int) -> bool:
        """Return whether a file with these stamps has the bytes of the time `noted`: a change moves the stamps.

        False where a change could have got the same stamp, or `noted` lies in the future because the clock was set
        back since. A clock that is set back and passes the very tick of a stamp again is beyond what a stat can show.
        """
        if self._latest < noted and self.now() < noted:
            return False
        return all(self._is_past_or_future(stat, stamp, noted) for stamp in (stat.st_ctime_ns, stat.st_mtime_ns))

    def _is_past_or_future(self, stat: os.stat_result, stamp: int, noted: int) -> bool:
        """Return whether all changes from `noted` to now have a later stamp than `stamp`, or all an earlier one."""
        margin = COARSE_MARGIN if stamp % SECOND == 0 else FINE_MARGIN
        if self._device is None:
            self._device = self._folder.stat().st_dev if self._folder.exists() else -1
        if stat.st_dev != self._device:
            margin = max(margin, FOREIGN_MARGIN)
        return stamp + margin < noted or (self._is_readable and self.now() + margin < stamp)

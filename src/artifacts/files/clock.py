"""Read the clock of a file system, and tell whether a file's stamps prove that it has not changed since.

Two changes within one tick have the same stamp. Ticks last up to 2 s (FAT), 1 s (ext3, HFS+) or 10 ms. The clock of a
file server may differ from this machine's.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

SECOND = 10**9
FINE_MARGIN = SECOND // 10
# For a stamp in whole seconds, as file systems with long ticks give.
COARSE_MARGIN = 5 * SECOND // 2
# For a disk whose clock cannot be read: the largest assumed difference between the clocks of two machines.
FOREIGN_MARGIN = 60 * SECOND


class FileClock:
    """The clock of the disk that contains a folder. Times are nanoseconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._latest = 0
        self._is_readable = True
        self._device: int | None = None

    def now(self) -> int:
        """Return the disk's time: the stamp of a new file. If none can be made, this machine's time less a margin."""
        try:
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                self._latest = os.fstat(file.fileno()).st_ctime_ns
        except OSError:
            self._is_readable = False
            self._latest = time.time_ns() - FOREIGN_MARGIN
        return self._latest

    def before(self, stat: os.stat_result) -> int:
        """Return a time before now at which a file had these stamps: the latest known one, if it suffices."""
        return self._latest if self._latest and self.holds(stat, self._latest) else self.now()

    def holds(self, stat: os.stat_result, noted: int) -> bool:
        """Return whether a file with these stamps still has the bytes of the time `noted`.

        False if a change could have left the same stamps, or if `noted` is in the future because the clock was set
        back. A clock that was set back and passes the tick of a stamp again cannot be detected by a stat.
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

"""What a user is told when something is not as it must be: the fact with its place, then the next move."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

NOTHING_LEFT_BYTES = 1 << 16


class ArtifactsError(Exception):
    """A mistake that is not a bug of ours. `fact` says what is wrong and where; `fix` is the next move."""

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(fact, fix)
        self.fact = fact
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.fact}\n  fix: {self.fix}"


class RecipeError(ArtifactsError):
    """The recipe's author has the next move: syntax, unknown names, wrong types, circles."""


class StepError(ArtifactsError):
    """A step's input or tool is not what the step needs."""


class StoreError(ArtifactsError):
    """A source, the store or the disk below them is not in order."""


_REFUSES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
_MISPLACED = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def disk_error(error: Exception, folder: Path) -> StoreError | None:
    """The error to raise for one that the disk below `folder`, or what lies there, is to blame for; None for any other.

    Libraries report a full disk in many ways (torch by a RuntimeError, numpy by an OSError without a number), so a disk
    with nothing left is taken for the cause whatever the error says.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or _left_bytes(folder) < NOTHING_LEFT_BYTES:
        fix = "free some space (doit gc drops what no recipe needs), then run again"
        return StoreError(f"the disk below '{folder}' is full", fix)
    if isinstance(error, OSError) and number in (*_REFUSES, *_MISPLACED):
        named = f"'{error.filename}'" if error.filename else f"a file below '{folder}'"
        fix = "see to the disk and its permissions, then run again"
        if number in _MISPLACED:
            fix = "see that files are where files belong and folders where folders do, then run again"
        return StoreError(f"{named}: {error.strerror}", fix)
    return None


def _left_bytes(folder: Path) -> int:
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free

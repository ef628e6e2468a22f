"""User-facing errors: what is wrong and where, then how to fix it; and texts from outside as one printable line."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

NOTHING_LEFT_BYTES = 1 << 16
LINE_CHARACTERS = 1000
QUOTED_CHARACTERS = 80

# A quoted value; the apostrophe of "a step's" neither begins nor ends one. A path, which has a "/", is needed whole.
_LONG_QUOTED = re.compile(rf"(?<!\w)'([^'/]{{{QUOTED_CHARACTERS + 1},}})'(?!\w)")


def printable(text: str, most: int = LINE_CHARACTERS) -> str:
    """Return a text as one line that no terminal obeys: at most `most` characters, those in the middle left out.

    What Python calls unprintable (control and format characters, line ends, lone surrogates) is escaped as `repr` does.
    A quoted value is cut to 80 characters. Applied twice, it changes nothing more.
    """
    text = _shortened(text, most)
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    if len(text) > QUOTED_CHARACTERS:
        text = _LONG_QUOTED.sub(lambda found: f"'{_shortened(found[1], QUOTED_CHARACTERS)}'", text)
    return _shortened(text, most)


def _shortened(text: str, most: int) -> str:
    head = most * 3 // 4
    return text if len(text) <= most else f"{text[:head]}...{text[head + 3 - most :]}"


class ArtifactsError(Exception):
    """A mistake that is not a bug of ours. `fact` says what is wrong and where; `fix` is the next move.

    Both are `printable`: whatever they quote, the error is two lines.
    """

    def __init__(self, fact: str, fix: str) -> None:
        self.fact = printable(fact)
        self.fix = printable(fix)
        super().__init__(self.fact, self.fix)

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

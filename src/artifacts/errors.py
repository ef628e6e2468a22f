"""User-facing errors: what is wrong and where, then how to fix it. Also makes any text one printable line."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from pathlib import Path

from artifacts.web_address import without_secrets

NOTHING_LEFT_BYTES = 1 << 16
LINE_CHARACTERS = 1000
QUOTED_CHARACTERS = 80

# A quoted value. The apostrophe of "a step's" neither begins nor ends one. A path, which has a "/", is never cut.
_LONG_QUOTED = re.compile(rf"(?<!\w)'([^'/]{{{QUOTED_CHARACTERS + 1},}})'(?!\w)")


def printable(text: str, most: int = LINE_CHARACTERS) -> str:
    """Return a text as one line without terminal commands: at most `most` characters, those in the middle left out.

    Unprintable characters (control and format characters, line ends, lone surrogates) are escaped as in `repr`.
    A quoted value is cut to 80 characters. A second application changes nothing.
    """
    text = _shortened(text, most)
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    if len(text) > QUOTED_CHARACTERS:
        text = _LONG_QUOTED.sub(lambda match: f"'{_shortened(match[1], QUOTED_CHARACTERS)}'", text)
    return _shortened(text, most)


def _shortened(text: str, most: int) -> str:
    head = most * 3 // 4
    return text if len(text) <= most else f"{text[:head]}...{text[head + 3 - most :]}"


class ArtifactsError(Exception):
    """An error that is not a bug of ours. `fact` says what is wrong and where; `fix` is the next move.

    Both are made `printable`, so that the error is always two lines. Web addresses in a fact are shown without secrets.
    """

    def __init__(self, fact: str, fix: str) -> None:
        self.fact = printable(without_secrets(fact))
        self.fix = printable(fix)
        super().__init__(self.fact, self.fix)

    def __str__(self) -> str:
        return f"{self.fact}\n  fix: {self.fix}"


class RecipeError(ArtifactsError):
    """An error for the recipe's author to fix: syntax, unknown names, wrong types, cycles."""


class StepError(ArtifactsError):
    """An error in a step's input or tool."""


class StoreError(ArtifactsError):
    """An error of a source, the store or the disk."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EBADMSG, errno.EUCLEAN)
_MISPLACED = (
    errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.ESPIPE,
    errno.ENXIO,
)  # fmt: skip

_FIXES = {
    **dict.fromkeys(_REFUSES, "check the disk and its permissions, then run again"),
    **dict.fromkeys(_MISPLACED, "put a file where a file belongs, and a folder where a folder belongs, then run again"),
    errno.EXDEV: "move the whole cache to one disk, and set 'cache:' in pipeline.yaml to its folder",
    errno.ENOENT: "do not move files of the project, the cache or dist during a run; run again",
    errno.EAGAIN: "end other programs, or raise the limit of processes (ulimit -u), then run again",
    errno.ENOMEM: "end other programs, or run fewer jobs at once (-n 1)",
    errno.ESTALE: "mount the network disk again, then run again",
    errno.ETXTBSY: "end the program that runs from this file, then run again",
    errno.ENFILE: "end other programs, or raise the system's limit (sysctl fs.file-max), then run again",
}


def disk_error(error: Exception, folder: Path) -> StoreError | None:
    """Return the error to raise for an exception that the disk below `folder` caused; None for any other.

    An OSError that names a file elsewhere is reported with the folder of that file. Libraries report a full disk in
    many ways (torch by a RuntimeError, numpy by an OSError without a number). So any error counts as the disk's if the
    disk has no space left; one without a number also if a file has exactly the maximal length.
    """
    number = error.errno if isinstance(error, OSError) else None
    at = _folder_of(error, folder)
    if number == errno.EMFILE:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        fact = f"this process has {limit} open files, which is its limit"
        return StoreError(fact, f"run `ulimit -n {max(4096, 4 * limit)}`, or fewer jobs at once (-n 1)")
    if isinstance(error, OSError) and number in _FIXES and (number != errno.ENOENT or error.filename):
        shown = f"'{error.filename}'" if error.filename else f"a file below '{at}'"
        return StoreError(f"{shown}: {error.strerror}", _FIXES[number])
    longest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if number == errno.EFBIG or (number is None and _has_file_of(longest, at)):
        if longest == resource.RLIM_INFINITY:
            fact = f"a file below '{at}' became longer than its file system allows (on FAT32: 4294967295 bytes)"
            return StoreError(fact, "use a disk with another file system")
        fact = f"a file below '{at}' became longer than the {longest} bytes that this process may write"
        return StoreError(fact, "run `ulimit -f unlimited`, then run again")
    if number in _FULL or _left_bytes(at) < NOTHING_LEFT_BYTES:
        fact = f"the disk below '{at}' is full" if number != errno.EDQUOT else f"the disk quota below '{at}' is used up"
        return StoreError(fact, "free some space (doit gc removes what no recipe needs), then run again")
    return None


def _folder_of(error: Exception, folder: Path) -> Path:
    """Return the folder of the file that the error names; `folder` if the file is below it, on the same disk."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return folder
    named = Path(error.filename).absolute()
    at = next(path for path in (named, *named.parents) if os.path.isdir(path))  # noqa: PTH112  # of any length
    is_below = at.is_relative_to(folder.absolute()) and folder.exists() and at.stat().st_dev == folder.stat().st_dev
    shown = Path(error.filename)
    return folder if is_below else next((path for path in (shown, *shown.parents) if os.path.isdir(path)), at)  # noqa: PTH112


def _has_file_of(size: int, folder: Path) -> bool:
    if size == resource.RLIM_INFINITY:
        return False
    return any(path.lstat().st_size == size for path in folder.rglob("*") if path.is_file())


def _left_bytes(folder: Path) -> int:
    paths = (folder, *folder.absolute().parents)
    usage = shutil.disk_usage(next(path for path in paths if os.path.exists(path)))  # noqa: PTH110  # a long name
    return usage.free if usage.total else NOTHING_LEFT_BYTES  # /proc and the like have no size

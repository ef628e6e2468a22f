"""Seals what a step wrote: its files are checked, hashed, made read-only and forced to the disk.

The step has ended and nothing of it runs any more: what is hashed here is what is kept.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from artifacts.digest import digest_file
from artifacts.files.atomic import sync
from artifacts.files.stamps import raise_error

MOST_FILES = 100_000
MOST_FOLDERS_DEEP = 20


class UnsealableError(Exception):
    """The step left something that is not a regular file of its own, or nothing."""


def seal(out: Path) -> dict[str, tuple[int, str]]:
    """Return the files below `out` as {name: (bytes, sha256)}, read-only and on the disk.

    Raises UnsealableError for links, for files that have a second name, for other kinds of file, for names that are not
    UTF-8, where there is no file, and beyond the bounds. Raises OSError.
    """
    if out.is_symlink() or not out.is_dir():
        raise UnsealableError("the step left something else in the place of its folder")
    files: dict[str, tuple[int, str]] = {}
    folders, total = [out], 0
    bytes_of_disk = shutil.disk_usage(out).total
    _open_to_its_owner(out)
    for parent, inner, names in os.walk(out, onerror=raise_error):
        if len(Path(parent).relative_to(out).parts) > MOST_FOLDERS_DEEP:
            raise UnsealableError(f"the step left folders that are more than {MOST_FOLDERS_DEEP} deep")
        for name in (*inner, *names):
            path = Path(parent, name)
            shown = str(path.relative_to(out))
            found = path.lstat()
            if len(files) + len(folders) > MOST_FILES:
                raise UnsealableError(f"the step left more than {MOST_FILES} files and folders")
            if not shown.isprintable() or "\\" in shown:
                raise UnsealableError(f"the step left {shown!a}, whose name is not printable or has a backslash")
            if stat.S_ISDIR(found.st_mode):
                folders.append(path)
                _open_to_its_owner(path)
            elif not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise UnsealableError(f"the step left '{shown}', which is a link or no regular file")
            elif (total := total + found.st_size) > bytes_of_disk:  # a file of holes; to hash it takes days
                raise UnsealableError(f"the step left '{shown}', and with it more bytes than the disk has")
            else:
                path.chmod(0o444)
                sync(path)
                files[shown] = (found.st_size, digest_file(path))
    if not files:
        raise UnsealableError("the step wrote no file")
    for folder in folders:
        sync(folder)
    return dict(sorted(files.items()))


def _open_to_its_owner(folder: Path) -> None:
    """Let the owner list the folder, and nobody else write in it, whatever mode the step gave it."""
    folder.chmod(stat.S_IMODE(folder.lstat().st_mode) & 0o755 | 0o700)

"""Seal the files that a step wrote: check and hash them, make them read-only, and force them to the disk.

The caller has ended the step and all its processes before. So nothing can change a file after it is hashed.
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
    """A step's output that cannot be sealed: it has no file, or something that `seal` does not accept."""


def seal(out: Path) -> dict[str, tuple[int, str]]:
    """Seal the files below `out`, and return them as {name: (bytes, sha256)}.

    Raises UnsealableError for links, for files with a second name, and for files that are not regular. Raises it for
    names that are not printable or have a backslash. Raises it if there is no file, or if a bound is exceeded. Raises
    OSError.
    """
    if out.is_symlink() or not out.is_dir():
        raise UnsealableError("the step replaced its folder by something else")
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
            status = path.lstat()
            if len(files) + len(folders) > MOST_FILES:
                raise UnsealableError(f"the step left more than {MOST_FILES} files and folders")
            if not shown.isprintable() or "\\" in shown:
                raise UnsealableError(f"the step left {shown!a}, whose name is not printable or has a backslash")
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
                _open_to_its_owner(path)
            elif not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise UnsealableError(f"the step left '{shown}', which is not a regular file, or has two names")
            elif (total := total + status.st_size) > bytes_of_disk:  # sparse files: hashing takes days
                raise UnsealableError(f"the step left '{shown}', and its files have more bytes than the disk")
            else:
                path.chmod(0o444)
                sync(path)
                files[shown] = (status.st_size, digest_file(path))
    if not files:
        raise UnsealableError("the step wrote no file")
    for folder in folders:
        sync(folder)
    return dict(sorted(files.items()))


def _open_to_its_owner(folder: Path) -> None:
    """Set the folder's mode so that its owner can list it and nobody else can write in it."""
    folder.chmod(stat.S_IMODE(folder.lstat().st_mode) & 0o755 | 0o700)

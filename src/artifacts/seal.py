"""Seals what a step wrote: its files are checked, hashed, made read-only and forced to the disk.

The step has ended and nothing of it runs any more: what is hashed here is what is kept.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from artifacts.atomic_files import sync
from artifacts.digest import digest_file


class UnsealableError(Exception):
    """The step left something that is not a regular file of its own, or nothing."""


def seal(out: Path) -> dict[str, tuple[int, str]]:
    """Return the files below `out` as {name: (bytes, sha256)}, read-only and on the disk.

    Raises UnsealableError for links, for files that have a second name, for other kinds of file, for names that are not
    UTF-8, and where there is no file. Raises OSError.
    """
    if not stat.S_ISDIR(out.lstat().st_mode):
        raise UnsealableError("the step left something else in the place of its folder")
    files, folders = {}, [out]
    for parent, inner, names in os.walk(out):
        for name in (*inner, *names):
            path = Path(parent, name)
            shown = str(path.relative_to(out))
            found = path.lstat()
            if not shown.isprintable() or "\\" in shown:
                raise UnsealableError(f"the step left {shown!a}, whose name is not printable or has a backslash")
            if stat.S_ISDIR(found.st_mode):
                folders.append(path)
            elif not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise UnsealableError(f"the step left '{shown}', which is a link or no regular file")
            else:
                path.chmod(0o444)
                sync(path)
                files[shown] = (found.st_size, digest_file(path))
    if not files:
        raise UnsealableError("the step wrote no file")
    for folder in folders:
        sync(folder)
    return dict(sorted(files.items()))

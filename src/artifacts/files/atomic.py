"""Write and remove files and folders atomically: a name refers to a complete file or to none, also after a crash."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

# The end of temporary names.
UNFINISHED = ".unfinished"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees all old bytes or all new ones, also after a crash.

    The caller holds the lock of the path: leftovers of killed runs beside it are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove the temporary files and folders that killed runs left beside `path`."""
    # Eight characters, as tempfile makes them. A pattern that allows dots could match another target's name.
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{UNFINISHED}"):
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder that a step left, of any depth and modes, if it is there. Raises OSError.

    Inner folders are moved up first: a walk down would end at Python's recursion limit or at the longest path.
    """
    if not _is_folder(path):
        path.unlink(missing_ok=True)
        return
    _make_writable(path)
    while entries := list(path.iterdir()):
        for entry in entries:
            if not _is_folder(entry):
                entry.unlink()
                continue
            _make_writable(entry)
            for inner in list(entry.iterdir()):
                if _is_folder(inner):
                    _make_writable(inner)  # a move changes the `..` entry of a folder
                    inner.rename(path / uuid.uuid4().hex)
                else:
                    inner.unlink()
            entry.rmdir()
    path.rmdir()


def _make_writable(folder: Path) -> None:
    with contextlib.suppress(OSError):  # if it was needed, the removal raises
        folder.chmod(0o700)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder beside `path`, for content that the caller renames to `path`; remove it at the end.

    The caller holds the lock of the path: leftovers of killed runs beside it are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    prefix, parent = f".{path.name}.", path.parent
    with naming(parent), tempfile.TemporaryDirectory(prefix=prefix, suffix=UNFINISHED, dir=parent) as folder:
        yield Path(folder)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of the block that has no file name: that of a failed write has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a folder of read-only files: rename it first, so that no other process sees half of it, then delete it.

    The caller holds the lock of the folder: leftovers of killed runs beside it are removed.
    """
    remove_unfinished(folder)
    if folder.is_symlink() or folder.exists():
        with unfinished_folder(folder) as doomed:
            folder.rename(doomed / folder.name)

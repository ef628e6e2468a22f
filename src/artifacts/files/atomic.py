"""Files and folders that are at their name whole or not at all, also after a crash."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

# The end of names that are on their way to another.
UNFINISHED = ".unfinished"


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader sees the old bytes or all of the new ones, also after a crash.

    The caller holds the lock under which the path is written: what a killed run left beside it is removed.
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
    """Remove the files and folders that killed runs left beside `path`, on their way to it."""
    # Eight characters, as tempfile makes them: with dots in it, a name could be another target's.
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{UNFINISHED}"):
        remove(left)


def remove(path: Path) -> None:
    """Remove what a step left: a file, a link or a folder, as deep and with such modes as may be; nothing if there is
    none. Raises OSError.

    What is deep inside is moved up first: a walk down ends at Python's recursion limit or at the longest path.
    """
    if not _is_folder(path):
        path.unlink(missing_ok=True)
        return
    _open_to_us(path)
    while entries := list(path.iterdir()):
        for entry in entries:
            if not _is_folder(entry):
                entry.unlink()
                continue
            _open_to_us(entry)
            for inner in list(entry.iterdir()):
                if _is_folder(inner):
                    _open_to_us(inner)  # a folder that moves is written to: it has another parent
                    inner.rename(path / uuid.uuid4().hex)
                else:
                    inner.unlink()
            entry.rmdir()
    path.rmdir()


def _open_to_us(folder: Path) -> None:
    with contextlib.suppress(OSError):  # where it matters, the removal fails and tells
        folder.chmod(0o700)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to make in it what is then renamed to `path`; removed at the end.

    The caller holds the lock under which the path is written: what a killed run left beside it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    prefix, parent = f".{path.name}.", path.parent
    with naming(parent), tempfile.TemporaryDirectory(prefix=prefix, suffix=UNFINISHED, dir=parent) as folder:
        yield Path(folder)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError in the block name `path` where it names no file: a write that fails does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a folder of read-only files, whoever else is about to look at it: first out of sight, then away.

    The caller holds the lock under which the folder is written: what a killed run left beside it is removed.
    """
    remove_unfinished(folder)
    if folder.is_symlink() or folder.exists():
        with unfinished_folder(folder) as doomed:
            folder.rename(doomed / folder.name)

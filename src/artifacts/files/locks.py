"""Locks between threads and processes. The kernel releases them when their holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from artifacts.errors import StoreError

# What flock(2) answers where a file system has no locks; NFS wants the file to be open for writing (EBADF).
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
ON_A_LOCAL_DISK = "name a folder on a local disk as 'cache:' in pipeline.yaml"


@contextlib.contextmanager
def held(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file against every other thread and process; `waiting` is called once if another holds it now.

    The file is removed at the end, by its holder. Raises `StoreError` where the file system has no locks.
    """
    with _acquired(path, waiting):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _acquired(path: Path, waiting: Callable[[], None] | None) -> IO[str]:
    """The lock file, locked. One that its last holder has removed meanwhile locks out nobody: the next one is tried."""
    while True:
        file = open_lock(path)
        try:
            if not lock_file(file, path.parent, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if waiting is not None:
                    waiting()
                    waiting = None
                lock_file(file, path.parent, fcntl.LOCK_EX)
            if _is_at(path, file):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def open_lock(path: Path) -> IO[str]:
    """Open the file of a lock, made with its folders if it is not there. Raises `StoreError`, OSError.

    Nothing is waited for: a named pipe in its place would wait for a reader.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc and the like
        raise StoreError(f"no folder can be made at '{path.parent}': {error.strerror}", ON_A_LOCAL_DISK) from None
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    return os.fdopen(handle, "w")


def lock_file(file: IO[str] | IO[bytes], folder: Path, how: int, fix: str = ON_A_LOCAL_DISK) -> bool:
    """Call flock(2); False if another holds the lock and `how` says not to wait.

    Raises `StoreError`, which names `folder`, where the file system has no locks.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise StoreError(f"files in '{folder}' cannot be locked: {error.strerror}", fix) from None
    return True


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False

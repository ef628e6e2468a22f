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

# Errors of flock(2) on a file system without locks. On NFS the file must be open for writing, else EBADF.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
USE_A_LOCAL_DISK = "name a folder on a local disk as 'cache:' in pipeline.yaml"


@contextlib.contextmanager
def held(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file at `path`; call `waiting` once if another thread or process holds it.

    The holder removes the file at the end. Raises `StoreError` if the file system has no locks.
    """
    with _acquired(path, waiting):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _acquired(path: Path, waiting: Callable[[], None] | None) -> IO[str]:
    """Open and lock the file. If the last holder has removed that file meanwhile, the lock is void: open a new one."""
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
    """Open a lock file, and make it with its folders if it is missing. Raises `StoreError`, OSError.

    The open does not block: on a named pipe it would wait for a reader.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc and the like
        raise StoreError(f"no folder can be made at '{path.parent}': {error.strerror}", USE_A_LOCAL_DISK) from None
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    return os.fdopen(handle, "w")


def lock_file(file: IO[str] | IO[bytes], folder: Path, how: int, fix: str = USE_A_LOCAL_DISK) -> bool:
    """Call flock(2); return False if the lock is held elsewhere and `how` contains LOCK_NB.

    Raises `StoreError`, which names `folder`, if the file system has no locks.
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

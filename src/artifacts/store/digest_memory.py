"""Memory of digests: values that were computed from a file's bytes are kept until the file is touched.

Each row contains a checksum of itself. The database may be lost at any time: a damaged one is replaced, and if none can
be read or written, everything is computed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.digest import digest_file
from artifacts.files.atomic import naming, remove
from artifacts.files.stamps import FINE_MARGIN, SECOND, FileClock

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
WORTH_WAITING_BYTES = 1 << 27
SCHEMA = """CREATE TABLE IF NOT EXISTS digests
(file TEXT, kind TEXT, value TEXT, noted TEXT, checksum TEXT, PRIMARY KEY (file, kind)) WITHOUT ROWID"""
READ = "SELECT value, noted, checksum FROM digests WHERE file = ? AND kind = ?"
SHA256 = "sha256"

# Errors by the disk or another process, which a new database does not avoid. Any other error is of the file itself.
_BY_OTHERS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_PROTOCOL")
_UNREADABLE = ("SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_DATA", "SQLITE_IOERR_CORRUPTFS")
# Exceptions of sqlite3 for a file that it cannot use. It fails to decode its own message if that quotes damaged text.
_FAILURES = (sqlite3.Error, UnicodeDecodeError, MemoryError)


class DigestMemory:
    """Digests of files by (device, inode, size, mtime_ns, ctime_ns): a stat replaces gigabytes of reading.

    Bytes that changed below the file system, with none of the five, count as unchanged; `digest_anew` reads them.
    The memory is one SQLite file, safe to share between threads and processes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clock = FileClock(path.parent)
        self._lock = threading.Lock()
        # Values that this process has read already: a step's code is read for every target.
        self._cached: dict[tuple[str, str], Any] = {}
        # Files that this run has hashed, with digest and time.
        self._hashed: dict[str, tuple[str, int]] = {}
        self._is_writable, self._was_replaced, self._has_warned = True, False, False
        self._database = self._first_database()

    def digest(self, path: Path) -> str:
        """Return the sha256 of a file, from memory if the file was not touched since."""
        return str(self.remember(path, SHA256, digest_file))

    def digest_anew(self, path: Path) -> str:
        """Return the sha256 of a file's bytes as they are now, and correct the memory by it.

        A file that this run has hashed, and that was not touched since, is not read again: an input of many targets is
        hashed once in a run. Bytes that rot later in the run are detected by the next run.
        """
        before, stat = _identity(path)
        digest, noted = self._hashed.get(before, ("", 0))
        if digest and self._clock.is_unchanged(stat, noted):
            return digest
        return str(self._compute(path, SHA256, digest_file))

    def note(self, path: Path, digest: str) -> None:
        """Remember the sha256 of a file that this run has hashed itself, and that was not touched since."""
        before, stat = _identity(path)
        self._note(path, before, stat, self._time_before_reading(stat), SHA256, digest)

    def remember(self, path: Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        """Return `compute(path)`, from memory if possible: a JSON value that depends on the file's bytes alone.

        Do not change the value: later calls return the same object.
        """
        before, stat = _identity(path)
        if (before, kind) in self._cached:
            return self._cached[before, kind]
        for value, noted, checksum in self._execute(READ, before, kind):
            # After a flipped bit, the bytes there may not be text.
            if checksum == _checksum(before, kind, value, noted) and self._clock.is_unchanged(stat, int(noted)):
                remembered = self._cached[before, kind] = json.loads(value.decode())
                return remembered
        return self._compute(path, kind, compute)

    def forget(self, path: Path) -> None:
        """Drop the remembered values of a file."""
        self._forget(_identity(path)[0])

    def forget_all(self) -> None:
        """Drop all remembered values."""
        self._cached.clear()
        self._hashed.clear()
        self._write("DELETE FROM digests")
        if not self._is_writable:  # nothing could be dropped, so the database is not read any more
            with self._lock:
                self._database.close()
                self._database = _open(Path(":memory:"))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _compute(self, path: Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        before, stat = _identity(path)
        started = self._time_before_reading(stat)  # a change during the reading must not count as earlier
        with naming(path):
            value = compute(path)
        if not self._note(path, before, stat, started, kind, value):
            self._forget(before)
        return value

    def _time_before_reading(self, stat: os.stat_result) -> int:
        started = self._clock.before(stat)
        if stat.st_size > WORTH_WAITING_BYTES and not self._clock.is_unchanged(stat, started):
            time.sleep(2 * FINE_MARGIN / SECOND)  # the file was touched just now; to hash it twice would take longer
            started = self._clock.now()
        return started

    def _note(self, path: Path, before: str, stat: os.stat_result, started: int, kind: str, value: Any) -> bool:
        if not self._clock.is_unchanged(stat, started) or _identity(path)[0] != before:
            return False
        self._cached.pop((before, kind), None)
        if kind == SHA256:
            self._hashed[before] = value, started
        written, noted = json.dumps(value), str(started)
        row = (before, kind, written, noted, _checksum(before, kind, written.encode(), noted.encode()).decode())
        self._write("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", *row)
        return True

    def _forget(self, identity: str) -> None:
        for key in [key for key in self._cached if key[0] == identity]:
            self._cached.pop(key, None)
        self._hashed.pop(identity, None)
        self._write("DELETE FROM digests WHERE file = ?", identity)

    def _write(self, statement: str, *values: str) -> None:
        if self._is_writable:
            self._execute(statement, *values)

    def _execute(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, one thread at a time; none if the database fails."""
        with self._lock:
            try:
                return self._database.execute(statement, values).fetchall()
            except _FAILURES as error:
                failed, self._database = self._database, self._next_database(error)
                if failed is not self._database:
                    failed.close()
                return []

    def _first_database(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return _open(self._path)
        except _FAILURES as error:
            return self._next_database(error)
        except OSError as error:
            return self._temporary_database(error)

    def _next_database(self, error: Exception) -> sqlite3.Connection:
        """Return the connection to use after an error: that of a new database if the old one is damaged."""
        name = str(getattr(error, "sqlite_errorname", ""))
        if hasattr(self, "_database") and (name == "SQLITE_FULL" or self._is_protected(name)):
            self._is_writable = False  # earlier values can still be read
            return self._database
        if self._was_replaced or (name.startswith(_BY_OTHERS) and not name.startswith(_UNREADABLE)):
            return self._temporary_database(error)
        self._was_replaced = True
        try:
            if self._path.is_file():
                self._path.open("r+b").close()  # raises if no descriptor is free, which is not the file's fault
            for suffix in ("", "-journal", "-wal", "-shm"):
                remove(self._path.with_name(self._path.name + suffix))
            self._warn(f"is damaged ({error}) and replaced; files are hashed again")
            return _open(self._path)
        except (OSError, *_FAILURES) as next_error:
            return self._temporary_database(next_error)

    def _is_protected(self, name: str) -> bool:
        """Return whether the file is write-protected. SQLite reports a damaged header in the same way."""
        if not name.startswith("SQLITE_READONLY") or os.access(self._path, os.W_OK):
            return False
        if not os.statvfs(self._path).f_flag & os.ST_RDONLY:
            self._warn("cannot be written; the next run hashes the files of this run again")
        return True

    def _temporary_database(self, error: Exception) -> sqlite3.Connection:
        self._warn(f"cannot be used ({error}); the next run hashes the files of this run again")
        return _open(Path(":memory:"))

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            log.warning("%s %s", self._path, " ".join(what.split()))
        self._has_warned = True


def _identity(path: Path) -> tuple[str, os.stat_result]:
    """Return device, inode, size, mtime and ctime of the file that a path leads to, as text, and its stat."""
    stat = path.stat()
    return f"{stat.st_dev}.{stat.st_ino}.{stat.st_size}.{stat.st_mtime_ns}.{stat.st_ctime_ns}", stat


def _checksum(file: str, kind: str, value: Any, noted: Any) -> bytes:
    if not isinstance(value, bytes) or not isinstance(noted, bytes):
        return b""
    return hashlib.sha256(b"\0".join((file.encode(), kind.encode(), value, noted))).hexdigest().encode()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False, isolation_level=None)
    try:
        database.text_factory = bytes
        # No journal on the disk: a lost database costs one more hashing, never a wrong answer.
        database.execute("PRAGMA synchronous=OFF")
        database.execute("PRAGMA journal_mode=MEMORY")
        database.execute(SCHEMA)
    except _FAILURES:
        database.close()
        raise
    return database

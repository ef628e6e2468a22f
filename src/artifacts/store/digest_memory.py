"""Memory of digests: what was computed from a file's bytes is kept until the file is touched.

Each row carries a checksum of its own. The database may be lost at any time: a damaged one is replaced, and where none
can be read or written, everything is computed.
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

# The disk or another process is to blame, and a new database would do no better. Any other error is of the file itself.
_BY_OTHERS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_PROTOCOL")
_UNREADABLE = ("SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_DATA", "SQLITE_IOERR_CORRUPTFS")
# What sqlite3 raises for a file that it cannot use. It fails to decode its own message where that quotes damaged text.
_FAILURES = (sqlite3.Error, UnicodeDecodeError, MemoryError)


class DigestMemory:
    """Remembers digests of files by (device, inode, size, mtime_ns, ctime_ns): a stat instead of gigabytes of reading.

    Bytes that changed below the file system, with none of the five, are taken for unchanged: `digest_anew` reads them.
    One SQLite file, safe to share between threads and processes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clock = FileClock(path.parent)
        self._lock = threading.Lock()
        # What was asked for once in this process, without asking SQLite again: a step's code is, for every target.
        self._asked: dict[tuple[str, str], Any] = {}
        # The files that this run has hashed, with their digests and when.
        self._hashed: dict[str, tuple[str, int]] = {}
        self._is_writable, self._was_replaced, self._has_warned = True, False, False
        self._database = self._first_database()

    def digest(self, path: Path) -> str:
        """The sha256 of a file, from memory if the file was not touched since."""
        return str(self.remember(path, SHA256, digest_file))

    def digest_anew(self, path: Path) -> str:
        """The sha256 of a file's bytes as they are now; what is remembered of the file is corrected by it.

        A file that this run has hashed, and that was not touched since, is not read again: an input of many targets is
        hashed once in a run. Bytes that rot after that, within the run, are met by the next one.
        """
        before, stat = _identity(path)
        digest, noted = self._hashed.get(before, ("", 0))
        if digest and self._clock.holds(stat, noted):
            return digest
        return str(self._compute(path, SHA256, digest_file))

    def note(self, path: Path, digest: str) -> None:
        """Remember the sha256 of a file that this run has hashed elsewhere, and that was not touched since."""
        before, stat = _identity(path)
        self._note(path, before, stat, self._time_before_reading(stat), SHA256, digest)

    def remember(self, path: Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        """`compute(path)`, a JSON value that depends on nothing but the file's bytes, from memory where possible.

        It is not to be changed: who asks next gets the same one.
        """
        before, stat = _identity(path)
        if (before, kind) in self._asked:
            return self._asked[before, kind]
        for value, noted, checksum in self._execute(READ, before, kind):
            # After a flipped bit, the bytes there may not be text.
            if checksum == _checksum(before, kind, value, noted) and self._clock.holds(stat, int(noted)):
                found = self._asked[before, kind] = json.loads(value.decode())
                return found
        return self._compute(path, kind, compute)

    def forget(self, path: Path) -> None:
        """Drop what is remembered of a file as it is now."""
        self._forget(_identity(path)[0])

    def forget_all(self) -> None:
        """Drop all that is remembered."""
        self._asked.clear()
        self._hashed.clear()
        self._write("DELETE FROM digests")
        if not self._is_writable:  # nothing could be dropped, so none of it is asked for any more
            with self._lock:
                self._database = _open(Path(":memory:"))

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._database.close()

    def _compute(self, path: Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        before, stat = _identity(path)
        started = self._time_before_reading(stat)  # a change meanwhile must not count as one before
        with naming(path):
            value = compute(path)
        if not self._note(path, before, stat, started, kind, value):
            self._forget(before)
        return value

    def _time_before_reading(self, stat: os.stat_result) -> int:
        started = self._clock.before(stat)
        if stat.st_size > WORTH_WAITING_BYTES and not self._clock.holds(stat, started):
            time.sleep(2 * FINE_MARGIN / SECOND)  # it was touched just now; to hash it again would take longer
            started = self._clock.now()
        return started

    def _note(self, path: Path, before: str, stat: os.stat_result, started: int, kind: str, value: Any) -> bool:
        if not self._clock.holds(stat, started) or _identity(path)[0] != before:
            return False
        self._asked.pop((before, kind), None)
        if kind == SHA256:
            self._hashed[before] = value, started
        written, noted = json.dumps(value), str(started)
        row = (before, kind, written, noted, _checksum(before, kind, written.encode(), noted.encode()).decode())
        self._write("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", *row)
        return True

    def _forget(self, identity: str) -> None:
        for asked in [asked for asked in self._asked if asked[0] == identity]:
            self._asked.pop(asked, None)
        self._hashed.pop(identity, None)
        self._write("DELETE FROM digests WHERE file = ?", identity)

    def _write(self, statement: str, *values: str) -> None:
        if self._is_writable:
            self._execute(statement, *values)

    def _execute(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """The rows that a statement gives, one thread at a time. What the database cannot do is not done."""
        with self._lock:
            try:
                return self._database.execute(statement, values).fetchall()
            except _FAILURES as error:
                self._database = self._next_database(error)
                return []

    def _first_database(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return _open(self._path)
        except _FAILURES as error:
            return self._next_database(error)
        except OSError as error:
            return self._own_memory(error)

    def _next_database(self, error: Exception) -> sqlite3.Connection:
        """The connection to use after an error: of a new database where the old one is to blame."""
        name = str(getattr(error, "sqlite_errorname", ""))
        if hasattr(self, "_database") and (name == "SQLITE_FULL" or self._is_protected(name)):
            self._is_writable = False  # what was remembered before is still of use
            return self._database
        if self._was_replaced or (name.startswith(_BY_OTHERS) and not name.startswith(_UNREADABLE)):
            return self._own_memory(error)
        self._was_replaced = True
        try:
            if self._path.is_file():
                self._path.open("r+b").close()  # a process without a free descriptor is not the file's fault
            for suffix in ("", "-journal", "-wal", "-shm"):
                remove(self._path.with_name(self._path.name + suffix))
            self._warn(f"is damaged ({error}) and begun anew; files are hashed again")
            return _open(self._path)
        except (OSError, *_FAILURES) as next_error:
            return self._own_memory(next_error)

    def _is_protected(self, name: str) -> bool:
        """Return whether the file is write-protected; a damaged header says so too."""
        if not name.startswith("SQLITE_READONLY") or os.access(self._path, os.W_OK):
            return False
        if not os.statvfs(self._path).f_flag & os.ST_RDONLY:
            self._warn("may not be written; what this run hashes, the next one hashes again")
        return True

    def _own_memory(self, error: Exception) -> sqlite3.Connection:
        self._warn(f"cannot be used ({error}); what this run hashes, the next one hashes again")
        return _open(Path(":memory:"))

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            log.warning("%s %s", self._path, " ".join(what.split()))
        self._has_warned = True


def file_identity(path: Path) -> str:
    """Device, inode, size, mtime and ctime of the file that a path leads to. Raises OSError."""
    return _identity(path)[0]


def _identity(path: Path) -> tuple[str, os.stat_result]:
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
        # Without a journal on the disk: a lost database costs one more hashing, never a wrong answer.
        database.execute("PRAGMA synchronous=OFF")
        database.execute("PRAGMA journal_mode=MEMORY")
        database.execute(SCHEMA)
    except _FAILURES:
        database.close()
        raise
    return database

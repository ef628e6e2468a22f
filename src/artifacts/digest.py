"""Content digests: sha256 of files, folders and JSON values, remembered as long as a file stays untouched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20

# A file changed twice within one tick of the file system's clock keeps its times. What was touched this recently is
# hashed again rather than remembered.
SETTLED_SECONDS = 0.1


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, no NaN (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """The sha256, in hex, of a JSON value's canonical spelling."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """The sha256, in hex, of a file's bytes, read in chunks."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestMemory:
    """Remembers digests of files by (device, inode, size, mtime_ns, ctime_ns): a stat instead of gigabytes of reading.

    A file whose bytes were changed without changing any of the five is taken for unchanged; who must not be fooled
    calls `forget_all` first. One SQLite file, safe to share between threads and processes. It may be lost at any time,
    and where it cannot be read or written, nothing is remembered and everything is computed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # What was asked for once in this process, without asking SQLite again: a step's code is, for every target.
        self._asked: dict[tuple[str, str], Any] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
        except (OSError, sqlite3.DatabaseError) as error:
            self._give_up(error)

    def digest(self, path: Path) -> str:
        """The sha256 of a file, from memory if the file was not touched since."""
        return str(self.remember(path, "sha256", digest_file))

    def note(self, path: Path, digest: str) -> None:
        """Remember the sha256 of a file that was just hashed elsewhere, and has not been touched since."""
        self._note(path, _file_identity(path), "sha256", digest)

    def remember(self, path: Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        """`compute(path)`, a JSON value that depends on nothing but the file's bytes, from memory where possible.

        It is not to be changed: who asks next gets the same one.
        """
        before = _file_identity(path)
        if (before, kind) in self._asked:
            return self._asked[before, kind]
        rows: list[tuple[str]] = []
        with self._using() as database:
            rows = database.execute("SELECT value FROM memory WHERE file = ? AND kind = ?", (before, kind)).fetchall()
        if rows:
            with contextlib.suppress(ValueError):  # a bit that flipped there
                value = self._asked[before, kind] = json.loads(rows[0][0])
                return value
        value = compute(path)
        self._note(path, before, kind, value)
        return value

    def forget_all(self) -> None:
        """Drop every remembered digest."""
        self._asked.clear()
        with self._lock:
            try:
                self._database.execute("DELETE FROM memory")
            except sqlite3.DatabaseError as error:
                self._give_up(error)

    def _note(self, path: Path, before: str, kind: str, value: Any) -> None:
        settled = time.time() - path.stat().st_ctime > SETTLED_SECONDS
        if settled and _file_identity(path) == before:
            with self._using() as database:
                database.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", (before, kind, json.dumps(value)))

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The connection, one thread at a time. What it cannot do is not done."""
        with self._lock:
            try:
                yield self._database
            except sqlite3.DatabaseError as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Remember in this process alone. A torn database is removed; one on a full or read-only disk is left."""
        if not isinstance(error, (OSError, sqlite3.OperationalError)):
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._database = _open(Path(":memory:"))


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")  # a lost line costs one more hashing, never a wrong answer
    database.execute("CREATE TABLE IF NOT EXISTS memory (file TEXT, kind TEXT, value TEXT, UNIQUE(file, kind))")
    return database


def _file_identity(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_dev}.{stat.st_ino}.{stat.st_size}.{stat.st_mtime_ns}.{stat.st_ctime_ns}"

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.files.stamps import FINE_MARGIN, SECOND
from artifacts.store import digest_memory as module
from artifacts.store.digest_memory import DigestMemory

SETTLED_SECONDS = FINE_MARGIN / SECOND
ONE = hashlib.sha256(b"one").hexdigest()


def write(path: Path, data: bytes) -> Path:
    """Write a file with a time that is old enough for its digest to be remembered."""
    path.write_bytes(data)
    time.sleep(SETTLED_SECONDS * 1.5)
    return path


@pytest.mark.parametrize("column", ["file", "kind", "value", "noted", "checksum"])
@pytest.mark.parametrize("damaged", ["'\"no end'", "NULL", "7", "x'ff00'", "{} || ' '", "replace({}, '1', '2')"])
def test_a_row_with_damage_in_any_column_is_not_used(tmp_path: Path, column: str, damaged: str) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.digest(path)
    memory.close()
    damaged = "''" if damaged == "NULL" and column in ("file", "kind") else damaged.format(column)
    with sqlite3.connect(tmp_path / "m") as database:
        assert database.execute(f"UPDATE digests SET {column} = {damaged}").rowcount == 1
    database.close()
    assert DigestMemory(tmp_path / "m").digest(path) == ONE


def remembered(tmp_path: Path, count: int) -> list[Path]:
    """Files whose digests are remembered in the memory `m`."""
    paths = [tmp_path / f"f{index}" for index in range(count)]
    for path in paths:
        path.write_bytes(path.name.encode())
    time.sleep(SETTLED_SECONDS * 1.5)
    memory = DigestMemory(tmp_path / "m")
    for path in paths:
        memory.digest(path)
    memory.close()
    return paths


def hashed(memory: DigestMemory, paths: list[Path]) -> int:
    """Check all digests, and return how many of these files the memory has to hash."""
    read: list[Path] = []

    def compute(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for path in paths:
        assert memory.remember(path, "sha256", compute) == hashlib.sha256(path.read_bytes()).hexdigest()
    memory.close()
    return len(read)


def test_one_flipped_bit_anywhere_gives_no_wrong_digest_and_is_repaired(tmp_path: Path) -> None:
    paths = remembered(tmp_path, 6)
    good = (tmp_path / "m").read_bytes()
    bits = random.Random(0)
    for _ in range(120):
        damaged = bytearray(good)
        bit = bits.randrange(8 * len(good))
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "m").write_bytes(damaged)
        for _ in range(2):
            hashed(DigestMemory(tmp_path / "m"), paths)
        assert hashed(DigestMemory(tmp_path / "m"), paths) == 0, f"bit {bit}: hashed in every run"


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text("in the way")


def _other_schema(statement: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.unlink()
        with sqlite3.connect(path) as database:
            database.execute(statement)
        database.close()

    return write


BROKEN: dict[str, Callable[[Path], object]] = {
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_bytes(b"no database at all" * 500),
    "cut off": lambda path: os.truncate(path, 2000),
    "a header alone": lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(5000)),
    "noise behind the header": lambda path: path.write_bytes(path.read_bytes()[:100] + os.urandom(8000)),
    "a newer format": lambda path: path.write_bytes(path.read_bytes()[:18] + b"\x03\x03" + path.read_bytes()[20:]),
    "a folder": _folder,
    "another schema": _other_schema("CREATE TABLE digests (file TEXT, value TEXT)"),
    "a view": _other_schema("CREATE VIEW digests AS SELECT 'x' AS file"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_database_is_replaced_and_reported_in_one_line(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    paths = remembered(tmp_path, 3)
    BROKEN[how](tmp_path / "m")
    assert hashed(DigestMemory(tmp_path / "m"), paths) == 3
    assert len(caplog.messages) == 1
    assert f"{tmp_path / 'm'} is damaged (" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    assert hashed(DigestMemory(tmp_path / "m"), paths) == 0, "the new one remembers"
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("data", [b"", bytes(4096), b"garbage" * 1000], ids=["empty", "zeros", "noise"])
def test_garbage_beside_the_database_changes_no_digest(tmp_path: Path, suffix: str, data: bytes) -> None:
    paths = remembered(tmp_path, 3)
    (tmp_path / f"m{suffix}").write_bytes(data)
    for _ in range(2):
        hashed(DigestMemory(tmp_path / "m"), paths)
    assert hashed(DigestMemory(tmp_path / "m"), paths) == 0


def test_the_wait_for_a_database_that_another_process_locks_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.3)
    paths = remembered(tmp_path, 3)
    lock = (
        "import sqlite3; d = sqlite3.connect('m'); d.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", lock], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        started = time.monotonic()
        assert hashed(DigestMemory(tmp_path / "m"), paths) == 3
        assert time.monotonic() - started < 4  # SQLite by itself waits 5 s
        process.communicate(b"\n")
    assert len(caplog.messages) == 1
    assert "cannot be used (database is locked); the next run hashes the files of this run again" in caplog.messages[0]
    assert hashed(DigestMemory(tmp_path / "m"), paths) == 0, "it was not thrown away"

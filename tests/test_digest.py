from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from artifacts.digest import SETTLED_SECONDS, DigestMemory, canonical_json, digest_file, digest_json


def write(path: Path, data: bytes) -> Path:
    """A file that was last touched long enough ago to be remembered."""
    path.write_bytes(data)
    time.sleep(SETTLED_SECONDS * 1.5)
    return path


def test_a_value_has_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "ä"}) == '{"a":"ä","b":[1,2.5,null]}'.encode()
    assert digest_json({"b": 1, "a": 2}) == digest_json({"a": 2, "b": 1})
    assert digest_json(1) != digest_json("1")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": value})


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "f").write_bytes(data)
    assert digest_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_an_untouched_file_is_not_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    read: list[Path] = []

    def compute(file: Path) -> int:
        read.append(file)
        return len(file.read_bytes())

    assert DigestMemory(tmp_path / "m").remember(path, "length", compute) == 3
    again = DigestMemory(tmp_path / "m")
    assert again.remember(path, "length", compute) == 3
    assert len(read) == 1
    assert again.remember(path, "another kind", compute) == 3
    assert len(read) == 2
    again.forget_all()
    again.remember(path, "length", compute)
    assert len(read) == 3


def test_a_file_that_was_touched_is_read_again_even_with_its_mtime_put_back(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    before = memory.digest(path)
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert memory.digest(path) != before


def test_a_file_that_was_touched_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "f"
    memory = DigestMemory(tmp_path / "m")
    path.write_bytes(b"one")
    memory.digest(path)
    memory.note(path, "wrong")
    assert memory.digest(path) == hashlib.sha256(b"one").hexdigest()


def test_what_was_hashed_elsewhere_can_be_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.note(path, "as noted")
    assert memory.digest(path) == "as noted"


@pytest.mark.parametrize("torn", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_torn_memory_is_begun_anew(tmp_path: Path, torn: bytes) -> None:
    path = write(tmp_path / "f", b"one")
    (tmp_path / "m").write_bytes(torn)
    for _ in range(2):
        assert DigestMemory(tmp_path / "m").digest(path) == hashlib.sha256(b"one").hexdigest()
    read: list[Path] = []
    DigestMemory(tmp_path / "m").remember(path, "sha256", read.append)
    assert not read, "the second one could remember"


def test_a_memory_that_is_torn_while_it_is_used_is_done_without(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.digest(path)
    with (tmp_path / "m").open("r+b") as file:
        file.write(b"torn" * 5000)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"m{suffix}").unlink(missing_ok=True)
    memory.forget_all()
    assert memory.digest(path) == hashlib.sha256(b"one").hexdigest()


def test_a_memory_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    (tmp_path / "in the way").write_text("")
    memory = DigestMemory(tmp_path / "in the way" / "m")
    assert memory.digest(path) == hashlib.sha256(b"one").hexdigest()


def test_many_threads_and_memories_come_to_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / f"f{index}" for index in range(40)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 1000)
    time.sleep(SETTLED_SECONDS * 1.5)
    right = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    memories = [DigestMemory(tmp_path / "m") for _ in range(2)]
    found: list[list[str]] = []

    def look(memory: DigestMemory) -> None:
        found.extend([memory.digest(path) for path in paths] for _ in range(5))

    threads = [threading.Thread(target=look, args=(memories[index % 2],)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [right] * 40


def test_a_line_of_the_memory_that_is_nonsense_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.digest(path)
    with sqlite3.connect(tmp_path / "m") as database:
        assert database.execute("UPDATE memory SET value = '\"no end'").rowcount == 1
    database.close()
    assert memory.digest(path) == hashlib.sha256(b"one").hexdigest()

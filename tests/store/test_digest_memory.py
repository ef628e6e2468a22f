from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.files.stamps import FINE_MARGIN, SECOND, stamps_of
from artifacts.store.digest_memory import DigestMemory

SETTLED_SECONDS = FINE_MARGIN / SECOND
ONE = hashlib.sha256(b"one").hexdigest()


def write(path: Path, data: bytes) -> Path:
    """Write a file with a time that is old enough for its digest to be remembered."""
    path.write_bytes(data)
    time.sleep(SETTLED_SECONDS * 1.5)
    return path


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


def test_a_digest_that_was_computed_elsewhere_can_be_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.note(path, "as noted")
    assert memory.digest(path) == "as noted"


@pytest.mark.parametrize("torn", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_torn_memory_is_replaced(tmp_path: Path, torn: bytes) -> None:
    path = write(tmp_path / "f", b"one")
    (tmp_path / "m").write_bytes(torn)
    for _ in range(2):
        assert DigestMemory(tmp_path / "m").digest(path) == hashlib.sha256(b"one").hexdigest()
    read: list[Path] = []
    DigestMemory(tmp_path / "m").remember(path, "sha256", read.append)
    assert not read, "the second one could remember"


def test_a_memory_that_is_torn_while_it_is_used_costs_no_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.digest(path)
    with (tmp_path / "m").open("r+b") as file:
        file.write(b"torn" * 5000)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"m{suffix}").unlink(missing_ok=True)
    memory.forget_all()
    assert memory.digest(path) == hashlib.sha256(b"one").hexdigest()


def test_a_memory_that_cannot_be_written_costs_no_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    (tmp_path / "in the way").write_text("")
    memory = DigestMemory(tmp_path / "in the way" / "m")
    assert memory.digest(path) == hashlib.sha256(b"one").hexdigest()


def test_many_threads_and_memories_give_the_same_digests(tmp_path: Path) -> None:
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


def test_a_remembered_digest_is_corrected_by_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.note(path, "as believed")
    memory.close()
    memory = DigestMemory(tmp_path / "m")
    assert memory.digest(path) == "as believed"
    assert memory.digest_anew(path) == ONE
    assert memory.digest(path) == ONE
    assert DigestMemory(tmp_path / "m").digest(path) == ONE


def test_a_run_hashes_a_file_anew_once_and_again_when_it_was_touched(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")
    memory.note(path, "as this run has hashed it")
    assert memory.digest_anew(path) == "as this run has hashed it"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert memory.digest_anew(path) == ONE


def test_a_file_that_is_written_while_it_is_hashed_is_not_remembered(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"one")
    memory = DigestMemory(tmp_path / "m")

    def compute(file: Path) -> str:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.write_bytes(b"two")
        time.sleep(SETTLED_SECONDS * 1.5)
        return digest

    assert memory.remember(path, "sha256", compute) == ONE
    assert memory.digest(path) == hashlib.sha256(b"two").hexdigest()


@pytest.fixture
def coarse_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with stamps in whole seconds, as on ext3."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    if not shutil.which("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not here: no disk with stamps of a second can be made")
    for command in (["mkfs.ext4", "-q", "-I", "128", image], ["mount", "-o", "loop", image, place]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk with stamps of a second can be mounted here: {done.stderr}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_file_changed_twice_within_a_second_is_read_again_where_stamps_are_seconds(coarse_disk: Path) -> None:
    path = coarse_disk / "f"
    memory = DigestMemory(coarse_disk / "m")
    for _ in range(20):  # until both changes fall into one second
        path.write_bytes(b"one")
        before = stamps_of(path)
        time.sleep(0.3)  # more than a fine clock's margin
        assert memory.digest(path) == ONE
        path.write_bytes(b"two")
        assert memory.digest(path) == hashlib.sha256(b"two").hexdigest()
        if stamps_of(path) == before:
            return
    pytest.fail("the two were always told apart by their stamps")

"""A file system of a test's own, kept in a file: bits can rot below it, and its times can be whole seconds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FIBMAP = 1  # ioctl: the block of the disk that contains a block of a file
BLOCK_BYTES = 1024


@dataclass(frozen=True)
class Disk:
    """A mounted file system and the file that contains it."""

    folder: Path
    image: Path

    def rot(self, path: Path, draw: random.Random) -> int:
        """Flip a bit of a file without the file system's knowledge, and return which bit. The file is not empty."""
        before = path.stat()
        bit = draw.randrange(8 * before.st_size)
        byte = bit // 8
        with path.open("rb") as file:
            os.fsync(file.fileno())
            was = file.read()
            block = fcntl.ioctl(file.fileno(), FIBMAP, struct.pack("i", byte // BLOCK_BYTES))
            at = struct.unpack("i", block)[0] * BLOCK_BYTES + byte % BLOCK_BYTES
            with self.image.open("r+b", buffering=0) as raw:
                os.pwrite(raw.fileno(), bytes([was[byte] ^ 1 << bit % 8]), at)
                os.fsync(raw.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        after, now = path.stat(), path.read_bytes()
        assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
            before.st_ino, before.st_mtime_ns, before.st_ctime_ns,
        )  # fmt: skip
        assert [index for index, other in enumerate(now) if other != was[index]] == [byte], "the bit did not rot"
        return bit


@contextlib.contextmanager
def mounted(folder: Path, *, whole_seconds: bool = False) -> Iterator[Disk]:
    """Mount an ext4 file system at `folder`, of which the times may be whole seconds, as those of ext3 are.

    Skips the test, and says so, where nothing can be mounted.
    """
    folder.mkdir()
    disk = Disk(folder, folder.with_suffix(".img"))
    with disk.image.open("wb") as file:
        file.truncate(48 << 20)
    features = ["-O", "^has_journal", "-b", str(BLOCK_BYTES), "-N", "20000", "-I", "128" if whole_seconds else "256"]
    for command in (["mke2fs", "-q", "-F", "-t", "ext4", *features], ["mount", "-o", "loop,noatime"]):
        words = [*command, str(disk.image), *([str(folder)] if command[0] == "mount" else [])]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except FileNotFoundError as error:
            pytest.skip(f"no disk can be mounted here: {error}")
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", folder], check=True)

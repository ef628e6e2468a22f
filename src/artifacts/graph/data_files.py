"""Writes files of tensors: each content at its place.

Ranges that follow each other both in their file and in the new one are copied by the kernel in one go
(`copy_file_range`): no byte passes through this process, and a file system that can share blocks does. That takes the
time of `cp`. What is computed on its way takes longer than its writing: of one file, several contents at a time.
What is written does not depend on the threads: every place is known beforehand.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from artifacts.graph.content import Content, FileRange

ALIGNMENT_BYTES = 64
"""Tensors start at multiples of a cache line: runtimes map the file and compute on it as it is."""

THREADS = 2
"""Two files are copied in less time than one after the other. Into one file the kernel lets a single thread write; the
other computes meanwhile. More would hold more memory than the disk repays."""

Placed = tuple[int, Content]
"""An offset in bytes, and what goes there."""

_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""The kernel, the file system or the pair of file systems cannot: then the bytes are copied by hand."""


def aligned(offset_bytes: int) -> int:
    """The first place at or after `offset_bytes` where a tensor may start."""
    return -(-offset_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def write_files(files: Mapping[Path, Sequence[Placed]]) -> None:
    """Write each file's contents, which are in the order of their offsets and do not overlap. Gaps become zeros.

    Contents are read in threads: two that share anything see to it themselves.
    Raises FileExistsError if one of the files is there already, and whatever the first content that fails raises.
    """
    with ExitStack() as opened:
        if len(files) == 1:
            ((path, placed),) = files.items()
            target = opened.enter_context(path.open("xb", buffering=0)).fileno()
            tasks = [partial(_write, content, target, offset) for offset, content in _joined(placed)]
        else:  # each is opened when its turn comes: a system limits how many can be at once
            tasks = [partial(_write_file, path, placed) for path, placed in files.items()]
        pool = opened.enter_context(ThreadPoolExecutor(THREADS))
        writing = [pool.submit(task) for task in tasks]
        try:
            for written in writing:
                written.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_file(path: Path, placed: Sequence[Placed]) -> None:
    with path.open("xb", buffering=0) as file:
        for offset, content in _joined(placed):
            _write(content, file.fileno(), offset)


def _joined(placed: Sequence[Placed]) -> Iterator[Placed]:
    """The same bytes in fewer copies: ranges that follow each other in both files become one."""
    last: Placed | None = None
    for offset, content in placed:
        longer = last and _continued(last, offset, content)
        if last and not longer:
            yield last
        last = longer or (offset, content)
    if last:
        yield last


def _continued(last: Placed, offset: int, content: Content) -> Placed | None:
    start, run = last
    if not (isinstance(run, FileRange) and isinstance(content, FileRange) and run.path == content.path):
        return None
    if (start + run.nbytes, run.offset_bytes + run.nbytes) != (offset, content.offset_bytes):
        return None
    return start, FileRange(run.path, run.offset_bytes, run.nbytes + content.nbytes)


def _write(content: Content, target: int, offset: int) -> None:
    if isinstance(content, FileRange):
        copied = _kernel_copy(content, target, offset)
        offset += copied
        content = FileRange(content.path, content.offset_bytes + copied, content.nbytes - copied)
    for piece in content.pieces():
        rest = piece
        while rest:
            written = os.pwrite(target, rest, offset)
            rest = rest[written:]
            offset += written


def _kernel_copy(source: FileRange, target: int, offset: int) -> int:
    """Copy as much of the range as the kernel will. Returns the bytes copied."""
    copied = 0
    with source.path.open("rb", buffering=0) as file:
        while copied < source.nbytes:
            begin = source.offset_bytes + copied
            try:
                count = os.copy_file_range(file.fileno(), target, source.nbytes - copied, begin, offset + copied)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                break
            if count == 0:
                break
            copied += count
    return copied

"""Write the tensors of a model to data files, or embed them in the protobuf, and write the protobuf.

What is to be written is a list of pairs: a tensor and its content. `stored_tensors` lists them as they are stored now;
a conversion (to fp16, say) replaces contents.

A data file is written by few copies. Ranges that are adjacent both in their file and in the new one are copied by the
kernel at once (`copy_file_range`): no byte passes through this process, and a file system that can share blocks does.
That takes the time of `cp`. Contents that are computed take longer than their writing, so several contents of one file
are computed at a time. The bytes do not depend on the threads, because every offset is known beforehand.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import TensorProto

from artifacts.errors import StepError
from artifacts.graph.external_data import Reference, set_external_data
from artifacts.graph.tensor_content import Content, FileRange, read_all, stored_content
from artifacts.graph.tensors import LocatedTensor, is_external, located_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

# Smaller tensors stay in the protobuf: most have no weights.
EXTERNAL_FROM_BYTES = 1024

# Shape inference reads integers with at most one axis, such as the sizes of a Split, and fails if they are external.
# They are a few for each axis or output of a node. A longer list is a table that a Gather reads.
SHAPE_LIMIT_BYTES = 1 << 20

# A protobuf of this size or more cannot be parsed.
PROTOBUF_LIMIT_BYTES = 2**31

# Tensors start at multiples of a cache line: runtimes map the file and compute on it as it is.
ALIGNMENT_BYTES = 64

# Two files are copied in less time than one after the other. The kernel lets one thread at a time write to one file;
# the other computes meanwhile. More threads would use more memory than the disk can repay.
THREADS = 2

# The kernel, the file system or this pair of file systems cannot copy: then this process does.
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}

Stored = tuple[LocatedTensor, Content]

# An offset in bytes, and the content to write there.
AtOffset = tuple[int, Content]


@dataclass(frozen=True)
class DataFileSummary:
    """Name, number of tensors and bytes of a data file that was written."""

    name: str
    tensors: int
    nbytes: int


def stored_tensors(model: ModelProto, folder: Path) -> list[Stored]:
    """List the tensors that can be external or are, with their bytes as stored now: in `folder` or in the protobuf."""
    return [
        (located, stored_content(located.tensor, folder))
        for located in located_tensors(model)
        if located.movable or is_external(located.tensor)
    ]


def any_external(stored: Sequence[Stored]) -> bool:
    """Return whether any of the tensors is external."""
    return any(is_external(located.tensor) for located, _ in stored)


def write_model(model: ModelProto, stored: Sequence[Stored], path: Path, *, external: bool) -> None:
    """Write `path`, with its tensors in `<path.name>.data` if `external`, else all in the protobuf.

    Raises StepError if the protobuf would reach 2^31 bytes.
    """
    total = sum(content.nbytes for _, content in stored)
    if not external and total >= PROTOBUF_LIMIT_BYTES:
        raise StepError(
            f"{path.name}: tensors of {total} bytes do not fit into one protobuf, which ends at {PROTOBUF_LIMIT_BYTES}",
            "keep them in external data",
        )
    if external:
        write_data_files(stored, path.parent, lambda _: f"{path.name}.data")
    else:
        embed_external_data(stored)
    write_protobuf(model, path)


def write_protobuf(model: ModelProto, path: Path) -> None:
    """Write the protobuf alone. Raises FileExistsError if `path` exists."""
    with path.open("xb") as file:
        file.write(model.SerializeToString(deterministic=True))


def embed_external_data(stored: Sequence[Stored]) -> None:
    """Read the external tensors of the list into the protobuf."""
    for located, content in stored:
        if is_external(located.tensor):
            located.tensor.raw_data = read_all(content)
            located.tensor.ClearField("data_location")
            del located.tensor.external_data[:]


def write_data_files(
    stored: Sequence[Stored], folder: Path, file_name: Callable[[int], str], max_file_bytes: int | None = None
) -> list[DataFileSummary]:
    """Write contents of 1024 bytes and more to data files in `folder`, in order, and make their tensors external.

    A file takes tensors until the next would exceed `max_file_bytes`; then `file_name(1)`, `file_name(2)`, ... follow
    `file_name(0)`. A tensor is never split: a larger one has a file of its own. Other external tensors (smaller ones,
    those that shape inference may read, and those where runtimes read no external data) are embedded. If no tensor
    is left for a file, none is written.
    """
    moving: list[Stored] = []
    staying: list[Stored] = []
    for located, content in stored:
        large = content.nbytes >= EXTERNAL_FROM_BYTES and not _may_be_shape(located.tensor, content.nbytes)
        (moving if located.movable and large else staying).append((located, content))
    embed_external_data(staying)
    files: dict[Path, list[AtOffset]] = {}
    for index, group in enumerate(_groups(moving, max_file_bytes)):
        contents = files[folder / file_name(index)] = []
        end = 0
        for _, content in group:
            contents.append((aligned(end), content))
            end = contents[-1][0] + content.nbytes
    log.info("writing %d tensors to %d files", len(moving), len(files))
    write_files(files)
    written = [(path.name, *at_offset) for path, contents in files.items() for at_offset in contents]
    for (located, _), (name, offset, content) in zip(moving, written, strict=True):
        set_external_data(located.tensor, Reference(name, offset, content.nbytes))
    return [DataFileSummary(path.name, len(contents), path.stat().st_size) for path, contents in files.items()]


def _may_be_shape(tensor: TensorProto, nbytes: int) -> bool:
    integers = tensor.data_type in (TensorProto.INT32, TensorProto.INT64)
    return integers and len(tensor.dims) <= 1 and nbytes <= SHAPE_LIMIT_BYTES


def _groups(stored: Sequence[Stored], max_file_bytes: int | None) -> Iterator[list[Stored]]:
    group: list[Stored] = []
    size = 0
    for located, content in stored:
        end = aligned(size) + content.nbytes
        if group and max_file_bytes is not None and end > max_file_bytes:
            yield group
            group, end = [], content.nbytes
        group.append((located, content))
        size = end
    if group:
        yield group


def aligned(offset_bytes: int) -> int:
    """Return the first offset at or after `offset_bytes` where a tensor may start."""
    return -(-offset_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def write_files(files: Mapping[Path, Sequence[AtOffset]]) -> None:
    """Write each file's contents, which are in the order of their offsets and do not overlap. Gaps become zeros.

    Contents are read in threads: contents that share a state must lock it.
    Raises FileExistsError if a file exists, and the error of the first content that fails.
    """
    with ExitStack() as opened:
        if len(files) == 1:
            ((path, contents),) = files.items()
            target = opened.enter_context(path.open("xb", buffering=0)).fileno()
            tasks = [partial(_write, content, target, offset) for offset, content in _joined(contents)]
        else:  # each file is opened late: a system limits how many can be open at once
            tasks = [partial(_write_file, path, contents) for path, contents in files.items()]
        pool = opened.enter_context(ThreadPoolExecutor(THREADS))
        writing = [pool.submit(task) for task in tasks]
        try:
            for written in writing:
                written.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_file(path: Path, contents: Sequence[AtOffset]) -> None:
    with path.open("xb", buffering=0) as file:
        for offset, content in _joined(contents):
            _write(content, file.fileno(), offset)


def _joined(contents: Sequence[AtOffset]) -> Iterator[AtOffset]:
    """Yield the same bytes in fewer copies: ranges that are adjacent in both files become one."""
    last: AtOffset | None = None
    for offset, content in contents:
        longer = last and _continued(last, offset, content)
        if last and not longer:
            yield last
        last = longer or (offset, content)
    if last:
        yield last


def _continued(last: AtOffset, offset: int, content: Content) -> AtOffset | None:
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
    for chunk in content.chunks():
        rest = chunk
        while rest:
            written = os.pwrite(target, rest, offset)
            rest = rest[written:]
            offset += written


def _kernel_copy(source: FileRange, target: int, offset: int) -> int:
    """Copy as much of the range as the kernel will. Return the number of bytes copied."""
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

"""The bytes of a tensor: in chunks, on their way to a file, or as a numpy array."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from artifacts.graph.external_data import reference_of
from artifacts.graph.tensors import inline_bytes, is_external, tensor_nbytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A multiple of every element size. A chunk and what is computed from it fit the processor's cache.
CHUNK_BYTES = 1 << 20


class Content(Protocol):
    """Bytes that can be read in chunks. A chunk is valid until the next one is requested."""

    @property
    def nbytes(self) -> int: ...

    def chunks(self) -> Iterator[memoryview]: ...


@dataclass(frozen=True)
class FileRange:
    """`nbytes` bytes of a file from `offset_bytes` on, in chunks of CHUNK_BYTES; the last one may be smaller.

    They are read with `pread` into small buffers rather than through a memory map. Mapped pages count as memory of the
    process: to copy 2.4 GB would look like (and under a limit be) a process of 2.4 GB.
    """

    path: Path
    offset_bytes: int
    nbytes: int

    def chunks(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(CHUNK_BYTES, self.nbytes)))
        with self.opened() as read_into:
            for start in range(0, self.nbytes, CHUNK_BYTES):
                chunk = buffer[: self.nbytes - start]
                read_into(chunk, start)
                yield chunk

    @contextmanager
    def opened(self) -> Iterator[Callable[[memoryview, int], None]]:
        """Open the file, and give a function that fills a buffer with the range's bytes from an offset on.

        The function raises EOFError if the file has become shorter.
        """
        with self.path.open("rb", buffering=0) as file:
            descriptor = file.fileno()

            def read_into(buffer: memoryview, start: int) -> None:
                filled = 0
                while filled < len(buffer):
                    count = os.preadv(descriptor, [buffer[filled:]], self.offset_bytes + start + filled)
                    if count == 0:
                        raise EOFError(f"'{self.path.name}' became shorter while it was read")
                    filled += count

            yield read_into


@dataclass(frozen=True)
class InTensor:
    """The values of a tensor that is not external: `raw_data`, or a typed field that is converted when it is read."""

    tensor: TensorProto

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.tensor)

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(inline_bytes(self.tensor))


def stored_content(tensor: TensorProto, folder: Path) -> FileRange | InTensor:
    """Return the tensor's bytes as they are stored now: in a file of `folder` if it is external, else in the protobuf.

    Raises StepError if the tensor's reference is malformed.
    """
    if not is_external(tensor):
        return InTensor(tensor)
    reference = reference_of(tensor)
    return FileRange(folder / reference.location, reference.offset_bytes, reference.length_bytes)


def read_all(content: Content) -> bytes:
    """Return all bytes of a content."""
    return b"".join(bytes(chunk) for chunk in content.chunks())


def read_floats(content: Content) -> NDArray[np.float32]:
    """Return all float32 numbers of a content, flat. A file's range is read without a second buffer.

    A memory map would be no copy, but its pages would stay memory of this process.
    """
    values = np.empty(content.nbytes // 4, np.float32)
    buffer = values.view(np.uint8).data
    if isinstance(content, FileRange):
        with content.opened() as read_into:
            read_into(buffer, 0)
        return values
    end = 0
    for chunk in content.chunks():
        buffer[end : end + len(chunk)] = chunk
        end += len(chunk)
    return values


class TensorReader:
    """Read tensors of the model file at `path`, as `load_graph` loaded (and checked) it, as numpy arrays.

    External data are memory-mapped. A view costs nothing until it is read; the pages that are read count as memory of
    this process until the kernel reclaims them. A view stays valid after the reader is closed.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._maps: dict[str, mmap.mmap] = {}

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._maps.clear()  # a map is closed when its last view is deleted

    def bytes(self, tensor: TensorProto) -> memoryview:
        """Return the tensor's little-endian bytes, read-only."""
        if not is_external(tensor):
            return memoryview(inline_bytes(tensor))
        reference = reference_of(tensor)
        start = reference.offset_bytes
        return memoryview(self._map(reference.location))[start : start + reference.length_bytes]

    def array(self, tensor: TensorProto) -> NDArray[Any]:
        """Return the tensor's values in its shape and dtype; read-only where they are a view of the file."""
        data = self.bytes(tensor)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        shape = tuple(tensor.dims)
        if len(data) == dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            return np.frombuffer(data, dtype).reshape(shape)
        packed = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=bytes(data))
        return numpy_helper.to_array(packed)

    def _map(self, location: str) -> mmap.mmap:
        if location not in self._maps:
            with (self._folder / location).open("rb") as file:
                self._maps[location] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[location]

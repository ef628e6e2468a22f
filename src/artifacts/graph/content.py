"""The bytes of a tensor before they are written: a range of a file, read in pieces, or a field of the protobuf.

Files are read with `pread` into small buffers rather than through a memory map: mapped pages count as the process's
memory, so that copying 2.4 GB would look like (and under a limit be) a process of 2.4 GB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from artifacts.graph.external_data import reference_of
from artifacts.graph.tensors import inline_bytes, is_external, tensor_nbytes

if TYPE_CHECKING:
    from onnx import TensorProto

PIECE_BYTES = 1 << 20
"""A multiple of every element size. It fits the cache together with what is made of it."""


class Content(Protocol):
    """Bytes that can be read in pieces. A piece is valid until the next one is asked for."""

    @property
    def nbytes(self) -> int: ...

    def pieces(self) -> Iterator[memoryview]: ...


@dataclass(frozen=True)
class FileRange:
    """`nbytes` bytes of a file from `offset_bytes` on, in pieces of PIECE_BYTES and one that may be smaller."""

    path: Path
    offset_bytes: int
    nbytes: int

    def pieces(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(PIECE_BYTES, self.nbytes)))
        with self.opened() as read_into:
            for start in range(0, self.nbytes, PIECE_BYTES):
                piece = buffer[: self.nbytes - start]
                read_into(piece, start)
                yield piece

    @contextmanager
    def opened(self) -> Iterator[Callable[[memoryview, int], None]]:
        """Gives a function that fills a buffer with the range's bytes from a place on.

        It raises EOFError if the file has become shorter.
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
    """The values of a tensor that is not external: `raw_data`, or a typed field turned into bytes when it is read."""

    tensor: TensorProto

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.tensor)

    def pieces(self) -> Iterator[memoryview]:
        yield memoryview(inline_bytes(self.tensor))


def stored_content(tensor: TensorProto, folder: Path) -> FileRange | InTensor:
    """The tensor's bytes where they are now: in a file of `folder` if it is external, else in the protobuf."""
    if not is_external(tensor):
        return InTensor(tensor)
    reference = reference_of(tensor)
    return FileRange(folder / reference.location, reference.offset_bytes, reference.length_bytes)

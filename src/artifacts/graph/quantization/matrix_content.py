"""Float32 matrices on their way from file to file: scaled, or as symmetric int8, some rows at a time.

A tensor of more than two axes is a matrix of `dims[0]` rows: a convolution's `[O, I, k]` is `[O, I * k]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto

from artifacts.graph.tensor_content import CHUNK_BYTES, Content, FileRange, read_all, stored_content
from artifacts.graph.tensor_writer import Stored, any_external, write_model
from artifacts.graph.tensors import is_external, located_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray


def matrix_sizes(tensor: TensorProto) -> tuple[int, int]:
    """Return rows and columns. A tensor without axes has one row, a vector one column."""
    dims = list(tensor.dims) or [1]
    return dims[0], prod(dims[1:])


def row_blocks(content: Content, columns: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the float32 content in blocks `[r, columns]`, each with the index of its first row.

    A block of a file has CHUNK_BYTES or one row, whichever is more, and is valid until the next one is requested.
    """
    if not isinstance(content, FileRange):
        (chunk,) = content.chunks()
        yield 0, np.frombuffer(chunk, np.float32).reshape(-1, columns)
        return
    rows = content.nbytes // (4 * columns)
    buffer = np.empty((min(rows, max(1, CHUNK_BYTES // (4 * columns))), columns), np.float32)
    with content.opened() as read_into:
        for first in range(0, rows, len(buffer)):
            block = buffer[: rows - first]
            read_into(block.reshape(-1).view(np.uint8).data, first * 4 * columns)
            yield first, block


@dataclass(frozen=True)
class ScaledContent:
    """A float32 matrix with each row multiplied by one number of `rows`, each column by one of `columns`."""

    source: Content
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    def chunks(self) -> Iterator[memoryview]:
        for first, block in row_blocks(self.source, len(self.columns)):
            scaled = block * self.rows[first : first + len(block), np.newaxis]
            scaled *= self.columns
            yield scaled.reshape(-1).view(np.uint8).data


@dataclass(frozen=True)
class SymmetricInt8Content:
    """A float32 matrix as int8: each number divided by its column's scale, rounded half to even, within ±`limit`."""

    source: Content
    scales: NDArray[np.float32]
    limit: int

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // 4

    def chunks(self) -> Iterator[memoryview]:
        for _, block in row_blocks(self.source, len(self.scales)):
            numbers = np.rint(block / self.scales)
            np.clip(numbers, -self.limit, self.limit, out=numbers)
            yield numbers.astype(np.int8).reshape(-1).view(np.uint8).data


def write_replaced(model: ModelProto, folder: Path, contents: Mapping[str, Content], path: Path) -> None:
    """Write the model to `path` with new contents of the named initializers. Other bytes are copied from `folder`.

    Its tensors are external if any was. A named tensor has the dims and the dtype of its new content, and is external
    if the source of the content is.
    """
    for tensor in model.graph.initializer:
        if tensor.name in contents and not is_external(tensor):
            values = read_all(contents[tensor.name])
            tensor.CopyFrom(
                TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=values)
            )
    stored: list[Stored] = []
    for located in located_tensors(model):
        if is_external(located.tensor) and located.tensor.name in contents:
            stored.append((located, contents[located.tensor.name]))
        elif located.movable or is_external(located.tensor):
            stored.append((located, stored_content(located.tensor, folder)))
    write_model(model, stored, path, external=any_external(stored))

"""Float32 matrices on their way from file to file: scaled, or as 8-bit integers, some rows at a time.

A tensor of more than two axes is a matrix of `dims[0]` rows, as a convolution's `[O, I, k]` is one of `[O, I * k]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto

from artifacts.graph.content import PIECE_BYTES, Content, FileRange, stored_content
from artifacts.graph.tensor_writer import write_model
from artifacts.graph.tensors import is_external, iter_places

if TYPE_CHECKING:
    from numpy.typing import NDArray


def matrix_sizes(tensor: TensorProto) -> tuple[int, int]:
    """Rows and columns; one row of a tensor without axes, one column of a vector."""
    dims = list(tensor.dims) or [1]
    return dims[0], prod(dims[1:])


def row_blocks(content: Content, columns: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The float32 content in blocks `[r, columns]`, each with the index of its first row.

    A block of a file has PIECE_BYTES or one row, whichever is more, and is valid until the next one is asked for.
    """
    if not isinstance(content, FileRange):
        (piece,) = content.pieces()
        yield 0, np.frombuffer(piece, np.float32).reshape(-1, columns)
        return
    rows = content.nbytes // (4 * columns)
    room = np.empty((min(rows, max(1, PIECE_BYTES // (4 * columns))), columns), np.float32)
    with content.opened() as read_into:
        for first in range(0, rows, len(room)):
            block = room[: rows - first]
            read_into(block.reshape(-1).view(np.uint8).data, first * 4 * columns)
            yield first, block


def read_matrix(content: Content, columns: int) -> NDArray[np.float32]:
    """All of a float32 content, `[rows, columns]`; not a map of the file, whose pages would stay this process's."""
    matrix = np.empty((content.nbytes // (4 * columns), columns), np.float32)
    for first, block in row_blocks(content, columns):
        matrix[first : first + len(block)] = block
    return matrix


@dataclass(frozen=True)
class ScaledContent:
    """A float32 matrix with each row multiplied by one number of `rows`, each column by one of `columns`."""

    source: Content
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    def pieces(self) -> Iterator[memoryview]:
        for first, block in row_blocks(self.source, len(self.columns)):
            scaled = block * self.rows[first : first + len(block), np.newaxis]
            scaled *= self.columns
            yield scaled.reshape(-1).view(np.uint8).data


@dataclass(frozen=True)
class Int8Content:
    """A float32 matrix as int8: each number divided by its column's scale, rounded half to even, within ±`limit`."""

    source: Content
    scales: NDArray[np.float32]
    limit: int

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // 4

    def pieces(self) -> Iterator[memoryview]:
        for _, block in row_blocks(self.source, len(self.scales)):
            numbers = np.rint(block / self.scales)
            np.clip(numbers, -self.limit, self.limit, out=numbers)
            yield numbers.astype(np.int8).reshape(-1).view(np.uint8).data


def write_replaced(model: ModelProto, folder: Path, contents: Mapping[str, Content], path: Path) -> None:
    """Write the model to `path` with the contents of the initializers that are named; others as they are in `folder`.

    Its tensors are external if any was. A named tensor has the dims and the dtype of what is to come, and is external
    if what it is made of is.
    """
    for tensor in model.graph.initializer:
        if tensor.name in contents and not is_external(tensor):
            values = b"".join(bytes(piece) for piece in contents[tensor.name].pieces())
            tensor.CopyFrom(
                TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=values)
            )
    stored = [
        (place, contents.get(place.tensor.name) or stored_content(place.tensor, folder))
        for place in iter_places(model)
        if place.movable or is_external(place.tensor)
    ]
    write_model(model, stored, path, external=any(is_external(place.tensor) for place, _ in stored))

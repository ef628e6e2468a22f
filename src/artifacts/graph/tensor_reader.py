"""The values of a model's tensors as numpy arrays, without loading the model."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from artifacts.graph.external_data import reference_of
from artifacts.graph.tensors import inline_bytes, is_external

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TensorReader:
    """Reads tensors of the model file at `path`, as loaded (and checked) by `load_graph`.

    External data are memory-mapped: views cost nothing until they are touched, and the pages read count as this
    process's memory until the kernel wants them back. A view stays valid after the reader is closed.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._maps: dict[str, mmap.mmap] = {}

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._maps.clear()  # a map is unmapped when the last view of it dies

    def bytes(self, tensor: TensorProto) -> memoryview:
        """The tensor's little-endian bytes, read-only."""
        if not is_external(tensor):
            return memoryview(inline_bytes(tensor))
        reference = reference_of(tensor)
        start = reference.offset_bytes
        return memoryview(self._map(reference.location))[start : start + reference.length_bytes]

    def array(self, tensor: TensorProto) -> NDArray[Any]:
        """The tensor's values, in its shape and dtype; read-only where they are a view of the file."""
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

"""Float32 numbers to float16, a piece at a time.

Rounds to nearest, ties to even. As in onnxconverter-common, no number changes its sign or becomes zero or infinite:
those nearer to zero than `min_positive_val` are moved out to it, finite ones beyond `max_finite_val` in to it; zeros,
infinities and NaN stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from onnx import parser
from onnxruntime import InferenceSession, IOBinding, SessionOptions

from artifacts.graph.content import PIECE_BYTES, FileRange

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Fp16Rounding:
    """Converts arrays, and counts what it moved to the bounds so far; in any number of threads."""

    min_positive_val: float
    max_finite_val: float
    raised: int = 0
    lowered: int = 0
    _counting: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def convert(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        """The float16 of each value, in a new array of the same shape."""
        flat = values.reshape(-1)
        halves: NDArray[np.float16] = _cast_session().run(None, {"float32": flat})[0]
        self.keep_bounds(halves, flat, np.empty(flat.size, np.uint16))
        return halves.reshape(values.shape)

    def keep_bounds(
        self, halves: NDArray[np.float16], values: NDArray[np.float32], scratch: NDArray[np.uint16]
    ) -> None:
        """Move what is beyond the bounds, in `halves`, the rounded `values`; all three are flat and of one size."""
        # Looked for on the bits, where one subtraction finds both ends: small magnitudes wrap around to large ones.
        # Rounding keeps the order, so whatever was beyond a bound is now at or beyond the rounded bound.
        low, high = np.array([self.min_positive_val, self.max_finite_val], np.float16).view(np.uint16)
        limit = high - low - np.uint16(1)
        np.bitwise_and(halves.view(np.uint16), np.uint16(0x7FFF), out=scratch)
        np.subtract(scratch, low + np.uint16(1), out=scratch)
        if scratch.max(initial=0) >= limit:
            suspects = np.flatnonzero(scratch >= limit)
            halves[suspects] = self._moved(values[suspects])

    def _moved(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        low, high = np.float32(self.min_positive_val), np.float32(self.max_finite_val)
        magnitudes = np.abs(values)
        small = (magnitudes > 0) & (magnitudes < low)
        large = (magnitudes > high) & np.isfinite(magnitudes)
        with self._counting:
            self.raised += int(small.sum())
            self.lowered += int(large.sum())
        bounded = np.where(small, low, np.where(large, high, magnitudes))
        return np.copysign(bounded, values).astype(np.float16)


CAST = """
<ir_version: 8, opset_import: ["": 17]>
cast (float[N] float32) => (float16[N] float16) { float16 = Cast<to: int = 10>(float32) }
"""


@cache
def _cast_session() -> InferenceSession:
    """Rounds as `astype` does, bit for bit, but 25 times as fast: with the machine's own instruction."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return InferenceSession(parser.parse_model(CAST).SerializeToString(), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Fp16Content:
    """The float32 bytes of a file read as float16 ones: half as many, converted piece by piece in the same memory."""

    source: FileRange
    rounding: Fp16Rounding

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // 2

    def pieces(self) -> Iterator[memoryview]:
        room = min(PIECE_BYTES, self.source.nbytes) // 4
        values, halves, scratch = np.empty(room, np.float32), np.empty(room, np.float16), np.empty(room, np.uint16)
        binding = _bound(values, halves)
        for start in range(0, self.source.nbytes, PIECE_BYTES):
            count = min(room, (self.source.nbytes - start) // 4)
            if count < values.size:
                values, halves, scratch = values[:count], halves[:count], scratch[:count]
                binding = _bound(values, halves)
            self.source.read_into(values.view(np.uint8).data, start)
            _cast_session().run_with_iobinding(binding)
            self.rounding.keep_bounds(halves, values, scratch)
            yield halves.view(np.uint8).data


def _bound(values: NDArray[np.float32], halves: NDArray[np.float16]) -> IOBinding:
    """Ties the session's input and output to these arrays, for as long as both are held."""
    binding = _cast_session().io_binding()
    binding.bind_cpu_input("float32", values)
    binding.bind_output("float16", "cpu", 0, np.float16, halves.shape, halves.ctypes.data)
    return binding

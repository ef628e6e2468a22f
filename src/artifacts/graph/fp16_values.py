"""Convert float32 numbers to float16, a chunk at a time.

Numbers are rounded to nearest, ties to even. As in onnxconverter-common, no number changes its sign or becomes zero or
infinite. Numbers closer to zero than `min_positive_val` are moved to it, finite numbers beyond `max_finite_val` are
moved to that. Zeros, infinities and NaN stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from onnx import parser
from onnxruntime import InferenceSession, SessionOptions

from artifacts.graph.tensor_content import CHUNK_BYTES, FileRange

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Bounds are checked a run at a time: a number that may have to move costs a second check of its run, not of its chunk.
RUN_ELEMENTS = 1024

# All bits but the sign.
MAGNITUDE = np.uint16(0x7FFF)


class Fp16Rounding:
    """Convert arrays, and count the numbers that were moved to the bounds: `raised` and `lowered`. Thread-safe.

    Use few, large numpy calls: each one releases and re-acquires the GIL.
    """

    def __init__(self, min_positive_val: float, max_finite_val: float) -> None:
        self.raised = self.lowered = 0
        self._buffers: list[_Buffers] = []
        self._lock = Lock()
        self._session = _cast_session()  # created here, by one thread
        self._low, self._high = np.float32(min_positive_val), np.float32(max_finite_val)
        low, high = np.array([min_positive_val, max_finite_val], np.float16).view(np.uint16)
        self._first_inside = low + np.uint16(1)
        self._inside = high - self._first_inside

    def take_buffers(self) -> _Buffers:
        """Return buffers for a chunk: free ones, else new ones. Give them back with `give_back`."""
        with self._lock:
            return self._buffers.pop() if self._buffers else _Buffers(self._session)

    def give_back(self, buffers: _Buffers) -> None:
        """Keep the buffers for the next content."""
        self._buffers.append(buffers)

    def convert(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        """Return the float16 of each value, in a new array of the same shape."""
        flat = values.reshape(-1)
        halves: NDArray[np.float16] = self._session.run(None, {"float32": flat})[0]
        self.keep_bounds(halves, flat, np.empty(flat.size, np.uint16))
        return halves.reshape(values.shape)

    def keep_bounds(
        self, halves: NDArray[np.float16], values: NDArray[np.float32], scratch: NDArray[np.uint16]
    ) -> None:
        """Move numbers of `halves`, the rounded `values`, to the bounds. All three arrays are flat and of one size."""
        if not halves.size:
            return
        # This works on the bits, where one subtraction finds both ends: small magnitudes wrap around to large ones.
        # Rounding keeps the order, so a number beyond a bound is now at or beyond the rounded bound.
        np.bitwise_and(halves.view(np.uint16), MAGNITUDE, out=scratch)
        np.subtract(scratch, self._first_inside, out=scratch)
        runs = _run_starts(halves.size)
        suspects = runs[np.maximum.reduceat(scratch, runs) >= self._inside]
        # In a chunk of trained weights, a run or two has a tiny number; in pruned weights each run has zeros.
        if suspects.size > runs.size // 8:
            self._move(halves, values)
        else:
            for start in suspects.tolist():
                self._move(halves[start : start + RUN_ELEMENTS], values[start : start + RUN_ELEMENTS])

    def _move(self, halves: NDArray[np.float16], values: NDArray[np.float32]) -> None:
        magnitudes = np.abs(values)
        small = (magnitudes < self._low) & (magnitudes > 0)
        large = (magnitudes > self._high) & (magnitudes < np.inf)
        moved = np.flatnonzero(small | large)
        if moved.size:
            raised = small[moved]
            halves[moved] = np.copysign(np.where(raised, self._low, self._high), values[moved])
            with self._lock:
                self.raised += int(raised.sum())
                self.lowered += int(moved.size - raised.sum())


@cache
def _run_starts(size: int) -> NDArray[np.intp]:
    return np.arange(0, size, RUN_ELEMENTS)


CAST = """
<ir_version: 8, opset_import: ["": 17]>
cast (float[N] float32) => (float16[N] float16) { float16 = Cast<to: int = 10>(float32) }
"""


@cache
def _cast_session() -> InferenceSession:
    """Return a session that rounds as `astype`, bit for bit, but 25 times as fast: by the processor's instruction."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return InferenceSession(parser.parse_model(CAST).SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Buffers:
    """Buffers for a chunk, bound to the session's input and output.

    They are reused for one content after the other: to touch new pages takes longer than to convert the numbers.
    """

    def __init__(self, session: InferenceSession) -> None:
        self.values = np.zeros(CHUNK_BYTES // 4, np.float32)
        self.halves = np.empty(self.values.size, np.float16)
        self.scratch = np.empty(self.values.size, np.uint16)
        self._session = session
        self._binding = session.io_binding()
        self._binding.bind_cpu_input("float32", self.values)
        self._binding.bind_output("float16", "cpu", 0, np.float16, self.halves.shape, self.halves.ctypes.data)

    def cast(self) -> None:
        """Round all `values` to `halves`, however many are needed: to bind fewer to the session takes longer."""
        self._session.run_with_iobinding(self._binding)


@dataclass(frozen=True)
class Fp16Content:
    """The float32 numbers of a file range as float16: half the bytes, converted chunk by chunk in the same buffers."""

    source: FileRange
    rounding: Fp16Rounding

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // 2

    def chunks(self) -> Iterator[memoryview]:
        buffers = self.rounding.take_buffers()
        to_read, to_write = buffers.values.view(np.uint8).data, buffers.halves.view(np.uint8).data
        with self.source.opened() as read_into:
            for start in range(0, self.source.nbytes, CHUNK_BYTES):
                count = min(CHUNK_BYTES, self.source.nbytes - start) // 4
                read_into(to_read[: 4 * count], start)
                buffers.cast()
                self.rounding.keep_bounds(buffers.halves[:count], buffers.values[:count], buffers.scratch[:count])
                yield to_write[: 2 * count]
        self.rounding.give_back(buffers)

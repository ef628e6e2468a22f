"""Float32 numbers to float16, a piece at a time.

Rounds to nearest, ties to even. As in onnxconverter-common, no number changes its sign or becomes zero or infinite:
those nearer to zero than `min_positive_val` are moved out to it, finite ones beyond `max_finite_val` in to it; zeros,
infinities and NaN stay.
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

from artifacts.graph.content import PIECE_BYTES, FileRange

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN_ELEMENTS = 1024
"""Numbers are looked through a run at a time: one that may have to move costs its run a second look, not its piece."""

MAGNITUDE = np.uint16(0x7FFF)
"""All bits but the sign."""


class Fp16Rounding:
    """Converts arrays, and counts what it moved to the bounds so far: `raised` and `lowered`; in any number of threads.

    Few calls on much data each: whoever computes in numpy lets the other threads have the interpreter, and waits to
    get it back.
    """

    def __init__(self, min_positive_val: float, max_finite_val: float) -> None:
        self.raised = self.lowered = 0
        self._rooms: list[_Room] = []
        self._lock = Lock()
        self._session = _cast_session()  # made here, by one thread
        self._low, self._high = np.float32(min_positive_val), np.float32(max_finite_val)
        low, high = np.array([min_positive_val, max_finite_val], np.float16).view(np.uint16)
        self._first_inside = low + np.uint16(1)
        self._inside = high - self._first_inside

    def take_room(self) -> _Room:
        """Memory for a piece, to be given back: one that is free, else a new one."""
        with self._lock:
            return self._rooms.pop() if self._rooms else _Room(self._session)

    def give_back(self, room: _Room) -> None:
        """Let the next content have it."""
        self._rooms.append(room)

    def convert(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        """The float16 of each value, in a new array of the same shape."""
        flat = values.reshape(-1)
        halves: NDArray[np.float16] = self._session.run(None, {"float32": flat})[0]
        self.keep_bounds(halves, flat, np.empty(flat.size, np.uint16))
        return halves.reshape(values.shape)

    def keep_bounds(
        self, halves: NDArray[np.float16], values: NDArray[np.float32], scratch: NDArray[np.uint16]
    ) -> None:
        """Move what is beyond the bounds, in `halves`, the rounded `values`; all three are flat and of one size."""
        if not halves.size:
            return
        # Looked for on the bits, where one subtraction finds both ends: small magnitudes wrap around to large ones.
        # Rounding keeps the order, so whatever was beyond a bound is now at or beyond the rounded bound.
        np.bitwise_and(halves.view(np.uint16), MAGNITUDE, out=scratch)
        np.subtract(scratch, self._first_inside, out=scratch)
        runs = _run_starts(halves.size)
        suspects = runs[np.maximum.reduceat(scratch, runs) >= self._inside]
        # Of a piece of trained weights, a run or two has a number that is tiny; of pruned ones each has zeros.
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
    """Rounds as `astype` does, bit for bit, but 25 times as fast: with the machine's own instruction."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return InferenceSession(parser.parse_model(CAST).SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Room:
    """Memory for a piece on its way, with the session's input and output tied to it. Kept for one content after the
    other: to touch new pages for each takes longer than to convert what is put there."""

    def __init__(self, session: InferenceSession) -> None:
        self.values = np.zeros(PIECE_BYTES // 4, np.float32)
        self.halves = np.empty(self.values.size, np.float16)
        self.scratch = np.empty(self.values.size, np.uint16)
        self._session = session
        self._binding = session.io_binding()
        self._binding.bind_cpu_input("float32", self.values)
        self._binding.bind_output("float16", "cpu", 0, np.float16, self.halves.shape, self.halves.ctypes.data)

    def cast(self) -> None:
        """Round all `values` to `halves`, however many are of use: to tie fewer to the session takes longer."""
        self._session.run_with_iobinding(self._binding)


@dataclass(frozen=True)
class Fp16Content:
    """The float32 bytes of a file read as float16 ones: half as many, converted piece by piece in the same memory."""

    source: FileRange
    rounding: Fp16Rounding

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // 2

    def pieces(self) -> Iterator[memoryview]:
        room = self.rounding.take_room()
        to_read, to_write = room.values.view(np.uint8).data, room.halves.view(np.uint8).data
        with self.source.opened() as read_into:
            for start in range(0, self.source.nbytes, PIECE_BYTES):
                count = min(PIECE_BYTES, self.source.nbytes - start) // 4
                read_into(to_read[: 4 * count], start)
                room.cast()
                self.rounding.keep_bounds(room.halves[:count], room.values[:count], room.scratch[:count])
                yield to_write[: 2 * count]
        self.rounding.give_back(room)

"""A weight matrix in blocks of 4 or 8-bit numbers, as MatMulNBits reads it.

The layout and the rounding are those of ONNX Runtime, whose kernel does the work; its Python class around the same
kernel (`MatMulNBitsQuantizer`) holds the whole model. A block is `block_size` consecutive input channels of one output
channel. Symmetric blocks map their number of largest magnitude to the lowest integer, so that a scale is negative where
that number is positive; the middle integer is zero. Others map [min, max], widened to hold zero, to all integers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

from artifacts.errors import StepError
from artifacts.graph.content import Content, FileRange

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Part = Literal["packed", "scales", "zero_points"]

_SMALLEST_SCALE = np.float32(2**-126)
"""Below it the kernel's 1 / scale may be infinite."""


@dataclass(frozen=True)
class BlockFormat:
    """How a weight is cut and rounded: 4 or 8 bits, a power of two from 16 to 256 channels in a block."""

    bits: Literal[4, 8]
    block_size: int
    symmetric: bool

    def dims(self, part: Part, sizes: tuple[int, int]) -> tuple[int, ...]:
        """The dims of a part for a weight of K input and N output channels.

        packed: uint8 [N, blocks, block_size * bits / 8], padded with zero bytes where K ends within a block;
        scales: float32 [N, blocks]; zero_points: uint8 [N, blocks * bits / 8, rounded up].
        """
        rows, columns = sizes
        blocks = -(-rows // self.block_size)
        if part == "packed":
            return columns, blocks, self.block_size * self.bits // 8
        return (columns, blocks) if part == "scales" else (columns, -(-blocks * self.bits // 8))


@dataclass(frozen=True)
class Blocks:
    """A quantised weight; see `BlockFormat.dims`. Symmetric ones are read without `zero_points`."""

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]


def quantize_blocks(weight: NDArray[np.float32], form: BlockFormat) -> Blocks:
    """Quantise a matrix [K, N]. Raises StepError for NaN or infinity, or if a block is too small or large to scale."""
    if not np.isfinite(weight).all():
        raise StepError("holds NaN or infinity", "train or export the checkpoint again")
    rows, columns = weight.shape
    kernel = quantize_matmul_8bits if form.bits == 8 else quantize_matmul_4bits
    # The kernel writes no padding: zeros make the bytes the same every time.
    blocks = Blocks(
        np.zeros(form.dims("packed", (rows, columns)), np.uint8),
        np.zeros(form.dims("scales", (rows, columns)), np.float32),
        np.zeros(form.dims("zero_points", (rows, columns)), np.uint8),
    )
    out = blocks.packed, np.ascontiguousarray(weight), blocks.scales, blocks.zero_points
    kernel(*out, form.block_size, columns, rows, form.symmetric)
    _check_scales(blocks.scales, weight, form)
    return blocks


def _check_scales(scales: NDArray[np.float32], weight: NDArray[np.float32], form: BlockFormat) -> None:
    wrong = ~(np.isfinite(scales) & (np.abs(scales) >= _SMALLEST_SCALE))
    if wrong.any():  # a block of zeros may have the scale 0
        wrong &= np.logical_or.reduceat(weight != 0, np.arange(0, len(weight), form.block_size)).T
    if wrong.any():
        raise StepError(f"quantised with the scale {scales[wrong][0]}", "exclude the nodes that read it")


@dataclass
class BlockQuantizer:
    """Quantises `weights` weights when their parts are read, and holds the last one: it is written part by part.

    One at a time, in however many threads parts are read: a weight and its blocks are the memory that this takes.
    """

    form: BlockFormat
    weights: int
    _seen: set[str] = field(default_factory=set, init=False)
    _name: str | None = field(default=None, init=False)
    _blocks: Blocks | None = field(default=None, init=False)
    _busy: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def blocks(self, name: str, source: Content, sizes: tuple[int, int]) -> Blocks:
        """The weight `name` [K, N], whose float32 bytes are `source`. Raises StepError as `quantize_blocks` does."""
        with self._busy:
            if self._blocks is None or self._name != name:
                self._blocks = None  # its memory first
                weight = read_floats(source).reshape(sizes)
                try:
                    self._blocks, self._name = quantize_blocks(weight, self.form), name
                except StepError as error:
                    raise StepError(f"weight '{name}': {error.fact}", error.fix) from None
                self._seen.add(name)
                log.info("quantising weights", extra={"done": len(self._seen), "total": self.weights})
            return self._blocks


@dataclass(frozen=True)
class NBitsContent:
    """The bytes of one part of a weight [K, N] that is quantised on its way from `source`."""

    name: str
    part: Part
    source: Content
    sizes: tuple[int, int]
    quantizer: BlockQuantizer

    @property
    def nbytes(self) -> int:
        itemsize = 4 if self.part == "scales" else 1
        return itemsize * int(np.prod(self.quantizer.form.dims(self.part, self.sizes), dtype=np.int64))

    def pieces(self) -> Iterator[memoryview]:
        blocks = self.quantizer.blocks(self.name, self.source, self.sizes)
        yield getattr(blocks, self.part).reshape(-1).view(np.uint8).data


def read_floats(content: Content) -> NDArray[np.float32]:
    """All float32 numbers of a content, flat; of a file's range without a second buffer."""
    values = np.empty(content.nbytes // 4, np.float32)
    room = values.view(np.uint8).data
    if isinstance(content, FileRange):
        with content.opened() as read_into:
            read_into(room, 0)
        return values
    end = 0
    for piece in content.pieces():
        room[end : end + len(piece)] = piece
        end += len(piece)
    return values

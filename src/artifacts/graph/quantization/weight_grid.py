"""Round a weight to a quantisation grid, block by block: to int8, or to float32 of few different values.

A grid is the multiples of a scale, one scale for each channel. Its `count` levels span a channel from its smallest
number to its largest, 0 included. So zeros stay zeros (padding, pruned weights). No number moves by more than half a
scale. The smallest and the largest number are not clipped: for weights of 8 bits the large ones matter most. A
symmetric span would be wider wherever the two sides differ, and never saves more than a byte a channel.

A DequantizeLinear multiplies the integer by the scale as is done here. So a weight in int8 and one rounded to 256
levels are the same numbers bit for bit.

Every weight is seen as `[outer, channels, inner]`: the axes before the axis of its channels, that axis, and the axes
after it. A block is a contiguous range of it in the file: some outer rows with all of their channels, some channels of
one row, or a part of one channel. The scales of its channels can be applied to a block at once.

Files are read through a window of memory map. The numbers are needed in the processor and not in a buffer of this
process; to copy them there first (`pread`) would take as long as the computation. Only the window counts as memory of
this process.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from artifacts.errors import StepError
from artifacts.graph.tensor_content import CHUNK_BYTES, FileRange, InTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 512 KiB: a block and what is computed from it stay in the cache of one core, and a call is cheap beside its work.
BLOCK_ELEMENTS = CHUNK_BYTES // 8

# A weight up to this size is mapped as a whole, from its first reading to its last. That is any weight of a 0.6b
# encoder: most are matrices of 16 MiB at most, and one is a table of 39 MiB. Of a larger one, this much is mapped at
# once:
WHOLE_BYTES = 48 << 20
WINDOW_BYTES = 4 << 20

# Below it a float32 has fewer bits, down to a scale of 0. Numbers that small are rounded to 0.
SMALLEST_SCALE = np.finfo(np.float32).smallest_normal

LOWEST_INT8 = -128
INT8_LEVELS = 256

# Float32 numbers around this one are whole, so to add it rounds (to nearest, ties to even). Their lowest bits are those
# of the whole number that was added, in two's complement. One pass over memory instead of two.
SHIFT = np.float32(1.5 * 2**23)

_EXCLUDE = "name the nodes that consume it in nodes_to_exclude"

# Outer, channels, inner.
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Grid:
    """For each channel: levels are `scales * k` for whole k from `lowest` on.

    `uniform` marks the channels that have a single number: it is a level.
    """

    scales: NDArray[np.float32]
    lowest: NDArray[np.float32]
    uniform: NDArray[np.bool_]

    @property
    def largest_error(self) -> float:
        """The most that a number moves (except for float rounding): half the largest scale."""
        return float(self.scales[~self.uniform].max(initial=0)) / 2

    @property
    def zero_points(self) -> NDArray[np.int8]:
        """The integer of each channel that means 0, when its lowest level is -128."""
        return (LOWEST_INT8 - self.lowest).astype(np.int8)


def find_grid(smallest: NDArray[np.float32], largest: NDArray[np.float32], count: int) -> Grid:
    """Return `count` levels for channels that span from `smallest` to `largest`.

    Raises StepError if a span is not finite, or if its numbers are too small or too large for different levels.
    """
    if not (np.isfinite(smallest).all() and np.isfinite(largest).all()):
        raise StepError("has NaN or infinity", "train or export the checkpoint again")
    uniform = smallest == largest
    low, high = np.minimum(smallest, 0), np.maximum(largest, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = ((high.astype(np.float64) - low) / (count - 1)).astype(np.float32)
        scales[uniform] = np.where(smallest[uniform], np.abs(smallest[uniform]), 1)
        np.maximum(scales, SMALLEST_SCALE, out=scales, where=~uniform)
        # Where both ends fall between two levels, one level too many would be needed: then the scale grows a little.
        while (beyond := np.rint(high / scales) - np.rint(low / scales) > count - 1).any():
            scales[beyond] *= np.float32(1 + 2**-20)
        ends = scales * np.rint(np.stack([smallest, largest]) / scales)
    if not np.isfinite(ends).all():
        raise StepError(f"spans from {smallest.min()} to {largest.max()}, too far for float32", _EXCLUDE)
    if (ends == ends[0, 0]).all() and not (uniform.all() and (smallest == smallest[0]).all()):
        raise StepError(f"spans from {smallest.min()} to {largest.max()}: all would become one number", _EXCLUDE)
    return Grid(scales, np.rint(low / scales), uniform)


class Block(NamedTuple):
    """A range of a weight: its first element, its channels and its shape `[outer, channels, inner]`."""

    start: int
    channels: slice
    shape: Shape


def shape_by_channel(dims: Sequence[int], axis: int | None) -> Shape:
    """Return the weight's shape with the axis of its channels in the middle. Without an axis it is one channel."""
    if axis is None:
        return 1, 1, prod(dims)
    return prod(dims[:axis]), dims[axis], prod(dims[axis + 1 :])


def windows_of(shape: Shape) -> Iterator[list[Block]]:
    """Yield the blocks of a weight in order, grouped to windows of at most WINDOW_BYTES."""
    window: list[Block] = []
    size = 0
    for block in blocks_of(shape):
        size += 4 * prod(block.shape)
        if window and size > WINDOW_BYTES:
            yield window
            window, size = [], 4 * prod(block.shape)
        window.append(block)
    yield window


def blocks_of(shape: Shape) -> Iterator[Block]:
    """Yield the blocks of a weight in order, of at most BLOCK_ELEMENTS elements each."""
    outer, channels, inner = shape
    rows = BLOCK_ELEMENTS // (channels * inner)
    if rows:
        for row in range(0, outer, rows):
            yield Block(row * channels * inner, slice(0, channels), (min(rows, outer - row), channels, inner))
        return
    together = max(1, BLOCK_ELEMENTS // inner)
    for row in range(outer):
        for channel in range(0, channels, together):
            count = min(together, channels - channel)
            for begin in range(0, inner, BLOCK_ELEMENTS):
                start = (row * channels + channel) * inner + begin
                yield Block(start, slice(channel, channel + count), (1, count, min(BLOCK_ELEMENTS, inner - begin)))


class WeightBlocks:
    """The blocks of a weight in order, each with its values: float32, read-only, in the block's shape.

    Can be iterated any number of times. A map of the whole weight is closed when this object and its last view are
    deleted.
    """

    def __init__(self, content: FileRange | InTensor, shape: Shape) -> None:
        self._content, self._shape = content, shape
        self._whole = _map(content, 0, prod(shape)) if 4 * prod(shape) <= WHOLE_BYTES else None

    def __iter__(self) -> Iterator[tuple[Block, NDArray[np.float32]]]:
        for window in windows_of(self._shape):
            start, last = window[0].start, window[-1]
            count = last.start + prod(last.shape) - start
            values = _map(self._content, start, count) if self._whole is None else self._whole[start:][:count]
            for block in window:
                yield block, values[block.start - start :][: prod(block.shape)].reshape(block.shape)


def _map(content: FileRange | InTensor, start: int, count: int) -> NDArray[np.float32]:
    if isinstance(content, InTensor):
        return np.frombuffer(next(content.chunks()), np.float32, count, 4 * start)
    first = content.offset_bytes + 4 * start
    beyond_page = first % mmap.ALLOCATIONGRANULARITY
    # All pages at once: a page fault for every few of them would cost a third of the time.
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)
    with content.path.open("rb") as file:
        window = mmap.mmap(
            file.fileno(), beyond_page + 4 * count, flags, prot=mmap.PROT_READ, offset=first - beyond_page
        )
    return np.frombuffer(window, np.float32, count, beyond_page)  # closed when its last view is deleted


def span_of(blocks: WeightBlocks, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the smallest and the largest number of each channel, float32 `[channels]`. NaN where there is a NaN."""
    smallest, largest = np.full((2, channels), [[np.inf], [-np.inf]], np.float32)
    for block, values in blocks:
        smallest[block.channels] = np.minimum(smallest[block.channels], values.min(axis=(0, 2)))
        largest[block.channels] = np.maximum(largest[block.channels], values.max(axis=(0, 2)))
    return smallest, largest


@dataclass
class AsymmetricInt8Content:
    """A weight as int8 at 256 levels: `value = (number - zero point) * scale`. One byte a number.

    The weight is read when its bytes are requested, and its `grid` is known from then on.
    """

    name: str
    source: FileRange | InTensor
    shape: Shape
    grid: Grid | None = None

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // 4

    def chunks(self) -> Iterator[memoryview]:
        blocks = WeightBlocks(self.source, self.shape)
        self.grid = _grid_of(self.name, blocks, self.shape, INT8_LEVELS)
        zeros = self.grid.zero_points
        memory = np.empty(min(BLOCK_ELEMENTS, self.nbytes), np.int8)
        for block, _, shifted in _shifted_counts(blocks, self.grid):
            numbers = memory[: shifted.size].reshape(block.shape)
            np.copyto(numbers, shifted.view(np.int32), casting="unsafe")  # the lowest byte: modulo 256
            np.add(numbers, zeros[block.channels, np.newaxis], out=numbers)
            yield numbers.reshape(-1).view(np.uint8).data


@dataclass
class RoundedContent:
    """A weight as float32, each number at the nearest of `count` levels.

    The weight is read when its bytes are requested, and its `grid` is known from then on. `moved` says whether any
    number changed, once all are read.
    """

    name: str
    source: FileRange | InTensor
    shape: Shape
    count: int
    grid: Grid | None = None
    moved: bool = False

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    def chunks(self) -> Iterator[memoryview]:
        blocks = WeightBlocks(self.source, self.shape)
        self.grid = _grid_of(self.name, blocks, self.shape, self.count)
        for block, values, shifted in _shifted_counts(blocks, self.grid):
            # This gives 0 where rint would give -0: one zero, in one pattern of bits.
            numbers = np.subtract(shifted, SHIFT, out=shifted)
            np.multiply(numbers, self.grid.scales[block.channels, np.newaxis], out=numbers)
            self.moved = self.moved or bool((numbers != values).any())
            yield numbers.reshape(-1).view(np.uint8).data


def largest_error(contents: Iterable[AsymmetricInt8Content | RoundedContent]) -> float:
    """Return the most that a number of these may have moved (except for float rounding): half the largest scale."""
    return max(content.grid.largest_error for content in contents if content.grid)


def _grid_of(name: str, blocks: WeightBlocks, shape: Shape, count: int) -> Grid:
    try:
        return find_grid(*span_of(blocks, shape[1]), count)
    except StepError as error:
        raise StepError(f"weight '{name}': {error.fact}", error.fix) from None


def _shifted_counts(
    blocks: WeightBlocks, grid: Grid
) -> Iterator[tuple[Block, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield each block, its values, and the number of scales from 0 to each value, rounded (ties to even), plus SHIFT.

    The last array may be overwritten, and is valid until the next one is requested.
    """
    memory = np.empty(BLOCK_ELEMENTS, np.float32)
    for block, values in blocks:
        shifted = memory[: values.size].reshape(block.shape)
        np.divide(values, grid.scales[block.channels, np.newaxis], out=shifted)
        np.add(shifted, SHIFT, out=shifted)
        yield block, values, shifted

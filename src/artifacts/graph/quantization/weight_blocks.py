"""Reads a weight block by block, shaped so that numbers for its channels can be applied to a block at once.

Every weight is seen as `[outer, channels, inner]`: what comes before the axis of the channels, that axis, and what
comes after it. A block is a range of one of these that lies in one piece in the file: some outer rows with all of
their channels, some channels of one row, or a part of one channel.

Files are seen through a window of memory map: numbers are needed in the processor, not in a buffer of ours, and
copying them there first (`pread`) would take as long as what is computed on them. Only the window counts as this
process's memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from artifacts.graph.content import PIECE_BYTES, FileRange, InTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_ELEMENTS = PIECE_BYTES // 8
"""512 KiB: a block and what is made of it stay in the cache of one core, and a call is cheap beside its work."""

HELD_BYTES = 48 << 20
"""A weight up to this size is seen as a whole, from its first reading to its last. That is any of a 0.6b encoder:
most are matrices of 16 MiB at most, and one is a table of 39 MiB."""

STRETCH_BYTES = 4 << 20
"""What is seen at once of a weight that is larger."""

Shape = tuple[int, int, int]
"""Outer, channels, inner."""


class Block(NamedTuple):
    """A range of a weight: its first element, its channels and its shape `[outer, channels, inner]`."""

    start: int
    channels: slice
    shape: Shape


def shape_by_channel(dims: Sequence[int], axis: int | None) -> Shape:
    """The weight's shape with the axis of its channels in the middle; without one, all is one channel."""
    if axis is None:
        return 1, 1, prod(dims)
    return prod(dims[:axis]), dims[axis], prod(dims[axis + 1 :])


def stretches_of(shape: Shape) -> Iterator[list[Block]]:
    """The blocks of a weight in its order, in stretches of at most STRETCH_BYTES."""
    stretch: list[Block] = []
    size = 0
    for block in blocks_of(shape):
        size += 4 * prod(block.shape)
        if stretch and size > STRETCH_BYTES:
            yield stretch
            stretch, size = [], 4 * prod(block.shape)
        stretch.append(block)
    yield stretch


def blocks_of(shape: Shape) -> Iterator[Block]:
    """The blocks of a weight of this shape, of at most BLOCK_ELEMENTS elements each, in the weight's order."""
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
    """The blocks of a weight in its order, each with its values: float32, read-only, in the block's shape.

    To be iterated over any number of times. What is mapped of the weight stays so until this object and the last view
    of it are gone.
    """

    def __init__(self, content: FileRange | InTensor, shape: Shape) -> None:
        self._content, self._shape = content, shape
        self._whole = _look_at(content, 0, prod(shape)) if 4 * prod(shape) <= HELD_BYTES else None

    def __iter__(self) -> Iterator[tuple[Block, NDArray[np.float32]]]:
        for stretch in stretches_of(self._shape):
            start, last = stretch[0].start, stretch[-1]
            count = last.start + prod(last.shape) - start
            values = _look_at(self._content, start, count) if self._whole is None else self._whole[start:][:count]
            for block in stretch:
                yield block, values[block.start - start :][: prod(block.shape)].reshape(block.shape)


def _look_at(content: FileRange | InTensor, start: int, count: int) -> NDArray[np.float32]:
    if isinstance(content, InTensor):
        return np.frombuffer(next(content.pieces()), np.float32, count, 4 * start)
    first = content.offset_bytes + 4 * start
    beyond_page = first % mmap.ALLOCATIONGRANULARITY
    # All pages at once: to be interrupted for every few of them would cost a third of the time.
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)
    with content.path.open("rb") as file:
        window = mmap.mmap(
            file.fileno(), beyond_page + 4 * count, flags, prot=mmap.PROT_READ, offset=first - beyond_page
        )
    return np.frombuffer(window, np.float32, count, beyond_page)  # unmapped when the last view of it dies

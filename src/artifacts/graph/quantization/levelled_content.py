"""A weight's bytes with its numbers rounded to levels: as int8 that count levels, or as float32 as before.

Both have the same numbers for a level: `DequantizeLinear` multiplies the integer by the step as is done here, so that a
weight in int8 and one rounded to 256 levels are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from artifacts.errors import StepError
from artifacts.graph.quantization.weight_blocks import BLOCK_ELEMENTS, Block, WeightBlocks
from artifacts.graph.quantization.weight_levels import Levels, find_levels, span_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from artifacts.graph.content import FileRange, InTensor
    from artifacts.graph.quantization.weight_blocks import Shape

LOWEST_INT8 = -128
INT8_LEVELS = 256

SHIFT = np.float32(1.5 * 2**23)
"""Float32 numbers around this one are whole, so that adding it rounds (to nearest, ties to even); and their lowest bits
are those of the whole number that was added to it, in two's complement. One pass over memory instead of two."""


def zero_points(levels: Levels) -> NDArray[np.int8]:
    """The integer of each channel that means 0, when its lowest level is -128."""
    return (LOWEST_INT8 - levels.lowest).astype(np.int8)


@dataclass
class Int8Content:
    """256 levels as int8: `value = (number - zero point) * step`. One byte a number.

    A weight is read when its bytes are asked for, and its `levels` are known from then on.
    """

    name: str
    source: FileRange | InTensor
    shape: Shape
    levels: Levels | None = None

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // 4

    def pieces(self) -> Iterator[memoryview]:
        blocks = WeightBlocks(self.source, self.shape)
        self.levels = _levels(self.name, blocks, self.shape, INT8_LEVELS)
        zeros = zero_points(self.levels)
        memory = np.empty(min(BLOCK_ELEMENTS, self.nbytes), np.int8)
        for block, _, shifted in _shifted_counts(blocks, self.levels):
            numbers = memory[: shifted.size].reshape(block.shape)
            np.copyto(numbers, shifted.view(np.int32), casting="unsafe")  # the lowest byte: modulo 256
            np.add(numbers, zeros[block.channels, np.newaxis], out=numbers)
            yield numbers.reshape(-1).view(np.uint8).data


@dataclass
class RoundedContent:
    """Float32 numbers, each at the nearest of `count` levels.

    A weight is read when its bytes are asked for, and its `levels` are known from then on; `moved` says whether any
    number had to move, once all are read.
    """

    name: str
    source: FileRange | InTensor
    shape: Shape
    count: int
    levels: Levels | None = None
    moved: bool = False

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    def pieces(self) -> Iterator[memoryview]:
        blocks = WeightBlocks(self.source, self.shape)
        self.levels = _levels(self.name, blocks, self.shape, self.count)
        for block, values, shifted in _shifted_counts(blocks, self.levels):
            # This gives 0 where rint would give -0: one zero, in one pattern of bits.
            numbers = np.subtract(shifted, SHIFT, out=shifted)
            np.multiply(numbers, self.levels.steps[block.channels, np.newaxis], out=numbers)
            self.moved = self.moved or bool((numbers != values).any())
            yield numbers.reshape(-1).view(np.uint8).data


def largest_error(contents: Iterable[Int8Content | RoundedContent]) -> float:
    """No number of what was read moved by more than this, but for the rounding of float32: half the largest step."""
    return max(content.levels.largest_error for content in contents if content.levels)


def _levels(name: str, blocks: WeightBlocks, shape: Shape, count: int) -> Levels:
    try:
        return find_levels(*span_of(blocks, shape[1]), count)
    except StepError as error:
        raise StepError(f"weight '{name}': {error.fact}", error.fix) from None


def _shifted_counts(
    blocks: WeightBlocks, levels: Levels
) -> Iterator[tuple[Block, NDArray[np.float32], NDArray[np.float32]]]:
    """Each block, its values, and how many steps each is from 0, rounded to a whole number (ties to even), plus SHIFT.

    The latter is to be overwritten, and valid until the next is asked for.
    """
    memory = np.empty(BLOCK_ELEMENTS, np.float32)
    for block, values in blocks:
        shifted = memory[: values.size].reshape(block.shape)
        np.divide(values, levels.steps[block.channels, np.newaxis], out=shifted)
        np.add(shifted, SHIFT, out=shifted)
        yield block, values, shifted

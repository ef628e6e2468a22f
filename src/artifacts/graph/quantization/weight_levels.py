"""The levels that the numbers of a weight are rounded to: multiples of a step, for each channel its own.

`count` levels span a channel from its least number to its largest, 0 included: zeros stay zeros (padding, pruned
weights), and a DequantizeLinear, whose zero point is a level, can give the very same numbers back. No number moves by
more than half a step. Least and largest are covered rather than cut: for weights of 8 bits the large ones matter most.
A symmetric span would be wider wherever the two sides differ, and never saves more than a byte a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from artifacts.errors import StepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from artifacts.graph.quantization.weight_blocks import WeightBlocks

SMALLEST_STEP = np.finfo(np.float32).smallest_normal
"""Below it a float32 has fewer bits, down to a step of 0. What is so small is rounded to 0."""


@dataclass(frozen=True)
class Levels:
    """Of each channel: the levels are `steps * k` for whole k from `lowest` on."""

    steps: NDArray[np.float32]
    lowest: NDArray[np.float32]
    uniform: NDArray[np.bool_]
    """Which channels hold one single number: it is a level."""

    @property
    def largest_error(self) -> float:
        """No number moves by more than this (and float rounding): half the largest step."""
        return float(self.steps[~self.uniform].max(initial=0)) / 2


def span_of(blocks: WeightBlocks, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The least and the largest number of each channel, float32 `[channels]`. NaN where there is a NaN."""
    least, largest = np.full((2, channels), [[np.inf], [-np.inf]], np.float32)
    for block, values in blocks:
        least[block.channels] = np.minimum(least[block.channels], values.min(axis=(0, 2)))
        largest[block.channels] = np.maximum(largest[block.channels], values.max(axis=(0, 2)))
    return least, largest


def find_levels(least: NDArray[np.float32], largest: NDArray[np.float32], count: int) -> Levels:
    """`count` levels for channels that span from `least` to `largest`.

    Raises StepError if a span is not finite, or for numbers so small, or so large, that they cannot be kept apart.
    """
    if not (np.isfinite(least).all() and np.isfinite(largest).all()):
        raise StepError("holds NaN or infinity", "train or export the checkpoint again")
    uniform = least == largest
    low, high = np.minimum(least, 0), np.maximum(largest, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = ((high.astype(np.float64) - low) / (count - 1)).astype(np.float32)
        steps[uniform] = np.where(least[uniform], np.abs(least[uniform]), 1)
        np.maximum(steps, SMALLEST_STEP, out=steps, where=~uniform)
        # Where both ends fall between two levels, one more than there is would be needed: then the step grows a little.
        while (beyond := np.rint(high / steps) - np.rint(low / steps) > count - 1).any():
            steps[beyond] *= np.float32(1 + 2**-20)
        ends = steps * np.rint(np.stack([least, largest]) / steps)
    if not np.isfinite(ends).all():
        raise StepError(f"spans from {least.min()} to {largest.max()}, too far for float32", _EXCLUDE)
    if (ends == ends[0, 0]).all() and not (uniform.all() and (least == least[0]).all()):
        raise StepError(f"spans from {least.min()} to {largest.max()}: all would become one number", _EXCLUDE)
    return Levels(steps, np.rint(low / steps), uniform)


_EXCLUDE = "name the nodes that read it in nodes_to_exclude"

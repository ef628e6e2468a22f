"""Percentiles of magnitudes from a stream of numbers, in memory that does not grow with it.

A bin is a range of float32 bit patterns: the exponent and the first two bits of the mantissa. So a bin is 14 to 25 %
wide at any magnitude, and finding a number's bin is a shift. (High dynamic range histograms work like this; Tene,
HdrHistogram.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANTISSA_BITS = 2
SMALLEST_EXPONENT = -20
LARGEST_EXPONENT = 16
"""Magnitudes below 2^-20 are counted with the smallest bin, those of 2^16 and more with the largest."""

_SHIFT = 23 - MANTISSA_BITS
_FIRST = (127 + SMALLEST_EXPONENT) << MANTISSA_BITS
BINS = (LARGEST_EXPONENT - SMALLEST_EXPONENT) << MANTISSA_BITS


class MagnitudeHistogram:
    """How often each magnitude was met in each of C channels."""

    def __init__(self, channels: int) -> None:
        # Bin by bin, so that the memory of bins that no channel meets is never touched.
        self._counts = np.zeros((BINS, channels), np.uint32)
        self._channels = np.arange(channels, dtype=np.uint32)

    def add(self, rows: NDArray[np.float32], weight: int = 1) -> None:
        """Count the magnitudes of finite rows `[R, C]`, each `weight` times."""
        places = np.abs(rows).view(np.uint32)
        places >>= np.uint32(_SHIFT)
        np.clip(places, np.uint32(_FIRST), np.uint32(_FIRST + BINS - 1), out=places)
        places -= np.uint32(_FIRST)
        places *= np.uint32(len(self._channels))
        places += self._channels
        np.add.at(self._counts.reshape(-1), places.reshape(-1), np.uint32(weight))

    def percentiles(self, percent: float, abs_max: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[C]`: the percentile of each channel, at most its exact `abs_max [C]`. Something must have been added.

        Within a bin magnitudes are taken as evenly spread: what is found is in the right bin, so less than 25 % off.
        """
        return _percentiles(self._counts, percent, abs_max)

    def percentile(self, percent: float, abs_max: float) -> float:
        """The percentile of all channels together."""
        together = self._counts.sum(axis=1, keepdims=True, dtype=np.uint64)
        return float(_percentiles(together, percent, np.array([abs_max], np.float32))[0])


def _percentiles(
    counts: NDArray[np.uint32] | NDArray[np.uint64], percent: float, abs_max: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Of `counts [bins, C]`."""
    edges = (np.arange(_FIRST, _FIRST + BINS + 1, dtype=np.uint32) << np.uint32(_SHIFT)).view(np.float32)
    edges = edges.astype(np.float64)
    edges[0], edges[-1] = 0, np.inf  # the outer bins also hold what is beyond them
    below = np.cumsum(counts, axis=0, dtype=np.float64)
    wanted = below[-1] * (percent / 100)
    bins = np.argmax(below >= wanted, axis=0)
    columns = np.arange(counts.shape[1])
    inside = counts[bins, columns].astype(np.float64)
    part = 1 - (below[bins, columns] - wanted) / np.maximum(inside, 1)
    upper = np.minimum(edges[bins + 1], abs_max)
    found = edges[bins] + part * np.maximum(upper - edges[bins], 0)
    percentiles: NDArray[np.float32] = np.minimum(found, abs_max).astype(np.float32)
    return percentiles

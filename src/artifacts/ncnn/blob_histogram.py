"""The magnitudes of one blob over a whole corpus, in memory that does not grow with it: heard twice.

The first time their largest is found, the second time they are counted in 2048 bins up to it, zeros left out, as ncnn's
calibrators do. Both times have to bring the same numbers in the same order.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.ncnn.kl_threshold import BINS, kl_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALE_LIMIT = 1e6
"""An activation that never exceeds 127e-6 is one that is always zero, up to rounding."""


class BlobHistogram:
    """`look` at all the blob's numbers, then `count` them all again; then ask for its scale."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.abs_max = np.float32(0)
        self.histogram = np.zeros(BINS, np.uint64)
        self._digests = [0, 0]
        self._sizes = [0, 0]

    def look(self, numbers: NDArray[np.float32]) -> None:
        """Take in float32 numbers of the first pass. Raises StepError if one is not finite."""
        self._add(0, numbers)
        largest = np.abs(numbers).max(initial=np.float32(0))
        if not np.isfinite(largest):
            raise StepError(f"blob '{self.name}': NaN or infinity", "mend the model, or leave the recording out")
        self.abs_max = max(self.abs_max, np.float32(largest))

    def count(self, numbers: NDArray[np.float32]) -> None:
        """Take in float32 numbers of the second pass."""
        self._add(1, numbers)
        magnitudes = np.abs(numbers[numbers != 0])
        if magnitudes.size and self.abs_max:
            places = (magnitudes / self.abs_max * np.float32(BINS)).astype(np.int64)
            self.histogram += np.bincount(np.minimum(places, BINS - 1), minlength=BINS).astype(np.uint64)

    def scale(self, method: str) -> float:
        """127 / threshold, the threshold by `kl` or the largest magnitude itself by `absmax`.

        Raises StepError if the passes did not bring the same numbers, or next to none but zeros.
        """
        if self._sizes[0] != self._sizes[1] or self._digests[0] != self._digests[1]:
            raise StepError(
                f"blob '{self.name}': the second pass over the corpus brought other numbers than the first",
                "do not change the corpus meanwhile; with one thread and the same files the passes are alike",
            )
        largest = self.abs_max
        if largest * np.float32(SCALE_LIMIT) < np.float32(127):
            raise StepError(
                f"blob '{self.name}': is zero throughout the corpus (largest magnitude {largest:g})",
                "give a corpus of speech, or leave the layers that read it out of the table",
            )
        return float(kl_scale(self.histogram, float(largest)) if method == "kl" else np.float32(127) / largest)

    def _add(self, number: int, values: NDArray[Any]) -> None:
        self._sizes[number] += values.size
        self._digests[number] = zlib.crc32(np.ascontiguousarray(values).data, self._digests[number])

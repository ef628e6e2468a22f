"""One value's statistics while a corpus is heard: what is held is the same after one recording and after thousands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from artifacts.graph.quantization.activation_statistics import ActivationStatistics
from artifacts.graph.quantization.magnitude_histogram import MagnitudeHistogram

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RunningStatistics:
    """The exact range of each channel, how often which magnitude was met, and a sample of rows."""

    def __init__(self, value: str, channels: int, most_rows: int) -> None:
        self._value = value
        self._frames = 0
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)
        self._histogram = MagnitudeHistogram(channels)
        self._rows = np.empty((most_rows, channels), np.float32)
        self._kept = 0

    def add(
        self,
        low: NDArray[np.float32],
        high: NDArray[np.float32],
        frames: int,
        rows: NDArray[np.float32],
        *,
        keep: int,
    ) -> None:
        """Take what a tap gave for a recording, all of it finite.

        `low [C]` and `high [C]` are over all `frames` of it, `rows [R, C]` some of them, at even distances: each is
        counted for those that it stands for. The `keep` of them in the middles of as many equal parts are kept.
        """
        self._frames += frames
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        self._histogram.add(rows, weight=max(1, round(frames / len(rows))))
        count = min(keep, len(rows), len(self._rows) - self._kept)
        if count:
            chosen = (2 * np.arange(count) + 1) * len(rows) // (2 * count)
            self._rows[self._kept : self._kept + count] = rows[chosen]
            self._kept += count

    def result(self, percent: float) -> ActivationStatistics:
        """The statistics of all that was added, with this percentile of the magnitudes."""
        abs_max = np.maximum(np.abs(self._low), np.abs(self._high))
        return ActivationStatistics(
            value=self._value,
            frames=self._frames,
            low=self._low,
            high=self._high,
            percentile=self._histogram.percentiles(percent, abs_max),
            clip=self._histogram.percentile(percent, float(abs_max.max())),
            rows=self._rows[: self._kept],
        )

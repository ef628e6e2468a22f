"""Where to clip an activation before it is turned to 8 bits: the threshold that loses least information.

The method of Migacz, "8-bit inference with TensorRT" (2017), with the rules of ncnn's and sherpa-ncnn's calibrators,
which decide its outcome: 2048 bins of magnitudes, of which the thresholds from 128 on are tried; what is beyond the
threshold is counted with its last bin; the rest, requantised to 128 levels, is spread evenly over the bins that each
level covers, by their shares; 1e-4 is added to every bin of both; and the first threshold of the smallest
Kullback-Leibler divergence is taken, at the middle of its last bin.

The calibrators compute in float32, bin by bin. Here the sums over levels are differences of one cumulative sum, in
float64: 1920 thresholds of a layer take a tenth of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 2048
LEVELS = 128
EPSILON = 1e-4


def best_threshold(histogram: NDArray[np.uint64]) -> int:
    """The threshold, in bins from 128 to 2047, for a histogram `[2048]` of magnitudes that counts at least one."""
    counts = histogram.astype(np.float64)
    shares = (counts / counts.sum()).astype(np.float32).astype(np.float64)
    cumulative = np.concatenate([[0.0], np.cumsum(shares)])
    bins = np.arange(BINS + 1, dtype=np.float64)
    divergences = [_divergence(shares, cumulative, bins, threshold) for threshold in range(LEVELS, BINS)]
    return LEVELS + int(np.argmin(divergences))


def kl_scale(histogram: NDArray[np.uint64], abs_max: float) -> np.float32:
    """What to multiply the activation with, so that its threshold becomes 127; `abs_max` is where the last bin ends."""
    threshold = np.float32(best_threshold(histogram) + 0.5) * np.float32(abs_max) / np.float32(BINS)
    return np.float32(127) / np.float32(threshold)


def _divergence(
    shares: NDArray[np.float64], cumulative: NDArray[np.float64], bins: NDArray[np.float64], threshold: int
) -> float:
    """Of what is kept of `shares` below the threshold, from what is left of them after 128 levels."""
    clipped = shares[:threshold] + EPSILON
    clipped[-1] += cumulative[-1] - cumulative[threshold]
    edges = np.arange(LEVELS + 1) * (threshold / LEVELS)
    # A level's mean: what lies between its edges, a bin that an edge divides by its share. Then each bin's share of the
    # means. Both are differences of a cumulative sum that is linear within a bin or a level.
    below = np.interp(edges, bins[: threshold + 1], cumulative[: threshold + 1])
    levels = np.diff(np.interp(bins[: threshold + 1], edges, below))
    return float(np.sum(clipped * np.log(clipped / (levels + EPSILON))))

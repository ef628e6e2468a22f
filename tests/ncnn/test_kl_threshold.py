from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from artifacts.ncnn.kl_threshold import best_threshold, kl_scale
from artifacts.ncnn.runtime import Net, find_net
from ncnn_conversions import Array, Pieces

BINS, LEVELS, EPSILON = 2048, 128, 1e-4  # what upstream's calibrators have

Histogram = npt.NDArray[np.uint64]


@pytest.fixture(scope="module")
def histograms(pieces: Pieces, one_utterance: Array) -> list[Histogram]:
    """Of what layers of the encoder read of real speech: the features, rectified, normalised and gated values."""
    net = Net(*find_net(pieces.folder("head")))
    found = []
    for blob in ("3", "5", "9", "14", "15"):
        magnitudes = np.abs(net.run({"in0": one_utterance}, [blob])[blob])
        magnitudes = magnitudes[magnitudes > 0]
        found.append(np.histogram(magnitudes, BINS, (0, magnitudes.max()))[0].astype(np.uint64))
    return found


def divergence_by_definition(histogram: Histogram, threshold: int) -> float:
    """With every bin cut into 128 equal pieces, of which each level has as many as the threshold says."""
    shares = (histogram / histogram.sum()).astype(np.float32).astype(np.float64)
    kept = shares[:threshold] + EPSILON
    kept[-1] += shares[threshold:].sum()
    pieces = np.repeat(shares[:threshold] / LEVELS, LEVELS).reshape(LEVELS, threshold)
    means = pieces.sum(axis=1) / (threshold / LEVELS)
    spread = np.repeat(means, threshold).reshape(threshold, LEVELS).mean(axis=1) + EPSILON
    return float((kept * np.log(kept / spread)).sum())


def test_the_threshold_is_the_one_that_the_definition_gives(histograms: list[Histogram]) -> None:
    for histogram in histograms[:2]:
        by_definition = [divergence_by_definition(histogram, threshold) for threshold in range(LEVELS, BINS)]
        assert best_threshold(histogram) == LEVELS + int(np.argmin(by_definition))


def test_no_other_threshold_is_better_by_the_definition(histograms: list[Histogram]) -> None:
    found = [best_threshold(histogram) for histogram in histograms]
    for histogram, threshold in zip(histograms, found, strict=True):
        best = divergence_by_definition(histogram, threshold)
        others = [divergence_by_definition(histogram, other) for other in range(LEVELS, BINS, 37)]
        assert all(best <= other for other in others)
    assert len(set(found)) > 2  # real activations differ


@pytest.mark.parametrize(
    ("make", "threshold"),
    [
        (lambda counts: counts[:100], 128),  # nothing is clipped below the first that is tried
        (lambda counts: counts[:500], 500),  # an even spread has no tail to give up
    ],
)
def test_a_histogram_without_a_tail_is_clipped_where_it_ends(
    make: Callable[[Histogram], Histogram], threshold: int
) -> None:
    histogram = np.zeros(BINS, np.uint64)
    make(histogram)[:] = 1000
    assert best_threshold(histogram) == threshold


def test_the_scale_makes_the_middle_of_the_last_bin_127(histograms: list[Histogram]) -> None:
    threshold = best_threshold(histograms[0])
    scale = kl_scale(histograms[0], 16.0)
    assert scale.dtype == np.float32
    assert scale * (threshold + 0.5) * 16 / 2048 == pytest.approx(127, rel=1e-6)
    assert kl_scale(histograms[0], 32.0) == pytest.approx(float(scale) / 2, rel=1e-6)

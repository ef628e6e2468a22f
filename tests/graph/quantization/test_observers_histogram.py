from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from artifacts.graph.quantization.observers import (
    BINS,
    LARGEST_EXPONENT,
    SMALLEST_EXPONENT,
    MagnitudeHistogram,
)

Array = npt.NDArray[np.float32]


def abs_max(rows: Array) -> Array:
    return np.abs(rows).max(axis=0)


@pytest.fixture(scope="module")
def frames(speech_features: list[tuple[Array, npt.NDArray[np.int64]]]) -> Array:
    """Frames of real speech, `[T, 128]`: log energies, normalised."""
    return np.concatenate([features[0].T for features, _ in speech_features])


@pytest.mark.parametrize("percent", [60.0, 90.0, 99.0, 99.9])
def test_percentiles_of_speech_are_those_of_numpy_within_a_few_percent(frames: Array, percent: float) -> None:
    histogram = MagnitudeHistogram(frames.shape[1])
    for start in range(0, len(frames), 100):
        histogram.add(frames[start : start + 100])
    expected = np.percentile(np.abs(frames), percent, axis=0)
    found = histogram.percentiles(percent, abs_max(frames))
    assert np.abs(found / expected - 1).max() < 0.25  # the width of the widest bin
    assert np.abs(found / expected - 1).mean() < 0.04
    together = histogram.percentile(percent, float(np.abs(frames).max()))
    tail = percent == 99.9  # where a bin holds few numbers, they are taken as evenly spread over half of it
    assert together == pytest.approx(float(np.percentile(np.abs(frames), percent)), rel=0.125 if tail else 0.02)


def test_the_hundredth_percentile_is_the_exact_largest(frames: Array) -> None:
    histogram = MagnitudeHistogram(frames.shape[1])
    histogram.add(frames)
    np.testing.assert_array_equal(histogram.percentiles(100, abs_max(frames)), abs_max(frames))


def test_numbers_beyond_all_bins_are_counted_with_the_outermost() -> None:
    numbers = np.array([[0.0, 2.0 ** (SMALLEST_EXPONENT - 3), -(2.0 ** (LARGEST_EXPONENT + 3))]], np.float32)
    histogram = MagnitudeHistogram(3)
    histogram.add(numbers)
    assert histogram.percentiles(100, abs_max(numbers)).tolist() == abs_max(numbers).tolist()
    found = histogram.percentiles(60, abs_max(numbers))
    assert found[0] == 0
    assert found[1] <= 2.0**SMALLEST_EXPONENT
    assert 2.0 ** (LARGEST_EXPONENT - 1) <= found[2] <= 2.0 ** (LARGEST_EXPONENT + 3)


def test_a_weight_counts_a_row_that_many_times(frames: Array) -> None:
    loud, soft = 3 * frames[:50], frames[50:200]
    weighted, repeated = MagnitudeHistogram(frames.shape[1]), MagnitudeHistogram(frames.shape[1])
    weighted.add(loud, weight=3)
    weighted.add(soft)
    for rows in (loud, loud, loud, soft):
        repeated.add(rows)
    largest = abs_max(np.concatenate([loud, soft]))
    np.testing.assert_array_equal(weighted.percentiles(75, largest), repeated.percentiles(75, largest))


def test_channels_do_not_see_one_another() -> None:
    histogram = MagnitudeHistogram(2)
    histogram.add(np.array([[1.0, 100.0]] * 10, np.float32))
    found = histogram.percentiles(99, np.array([1.0, 100.0], np.float32))
    assert found[0] == pytest.approx(1, rel=0.25)
    assert found[1] == pytest.approx(100, rel=0.25)


def test_rows_are_left_as_they_are(frames: Array) -> None:
    rows = frames[:10].copy()
    MagnitudeHistogram(frames.shape[1]).add(rows)
    np.testing.assert_array_equal(rows, frames[:10])


def test_bins_of_the_widest_value_of_large_encoders_are_a_few_megabytes() -> None:
    assert BINS * 4096 * 4 < 2.5e6

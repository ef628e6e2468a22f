from __future__ import annotations

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.blob_histogram import BlobHistogram
from artifacts.ncnn.kl_threshold import BINS, kl_scale
from ncnn_conversions import Array


def hear(*passes: list[Array]) -> BlobHistogram:
    histogram = BlobHistogram("5")
    for number, arrays in enumerate(passes):
        for array in arrays:
            (histogram.count if number else histogram.look)(array)
    return histogram


@pytest.fixture(scope="module")
def speech(one_utterance: Array) -> list[Array]:
    """Real features, in pieces."""
    return [np.ascontiguousarray(each) for each in np.array_split(one_utterance, 7, axis=1)]


def test_magnitudes_are_counted_in_even_bins_up_to_the_largest(speech: list[Array]) -> None:
    histogram = hear(speech, speech)
    everything = np.abs(np.concatenate([each.reshape(-1) for each in speech]))
    assert histogram.abs_max == everything.max()
    expected, _ = np.histogram(everything[everything > 0], BINS, (0, float(everything.max())))
    assert int(histogram.histogram.sum()) == np.count_nonzero(everything)
    # A magnitude on an edge may fall to either side, for bins are found in float32.
    assert np.abs(histogram.histogram.astype(np.int64) - expected).sum() <= 4


def test_zeros_are_left_out_and_signs_do_not_count() -> None:
    numbers = np.array([0, 0, 1, -1, 2, -2, 0.5], np.float32)
    histogram = hear([numbers], [numbers])
    assert {int(place): int(histogram.histogram[place]) for place in np.flatnonzero(histogram.histogram)} == {
        512: 1,
        1024: 2,
        2047: 2,
    }


def test_pieces_do_not_matter(speech: list[Array]) -> None:
    whole = [np.concatenate([each.reshape(-1) for each in speech])]
    assert (hear(whole, whole).histogram == hear(speech, speech).histogram).all()


def test_the_scale_is_of_the_threshold_or_of_the_largest_magnitude(speech: list[Array]) -> None:
    histogram = hear(speech, speech)
    assert histogram.scale("absmax") == pytest.approx(127 / float(histogram.abs_max))
    assert histogram.scale("kl") == float(kl_scale(histogram.histogram, float(histogram.abs_max)))
    assert histogram.scale("kl") >= histogram.scale("absmax") * 0.99


def test_passes_that_differ_are_refused(speech: list[Array]) -> None:
    other = [*speech[:-1], speech[-1] * np.float32(0.5)]
    for second in (speech[:-1], [*speech, speech[0]], other, speech[::-1]):
        with pytest.raises(StepError, match="blob '5': the second pass over the corpus brought other numbers"):
            hear(speech, second).scale("kl")


def test_numbers_that_are_not_finite_or_all_zero_are_refused() -> None:
    with pytest.raises(StepError, match="blob '5': NaN or infinity"):
        hear([np.array([1, np.nan], np.float32)])
    with pytest.raises(StepError, match="blob '5': NaN or infinity"):
        hear([np.array([1, np.inf], np.float32)])
    zeros = [np.zeros(9, np.float32)]
    with pytest.raises(StepError, match=r"blob '5': is zero throughout the corpus \(largest magnitude 0\)"):
        hear(zeros, zeros).scale("kl")

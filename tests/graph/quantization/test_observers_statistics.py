from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from artifacts.graph.quantization.observers import RunningStatistics

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def recordings(speech_features: list[tuple[Array, npt.NDArray[np.int64]]]) -> list[Array]:
    """Frames of real speech, `[T, 128]` for each recording."""
    return [np.ascontiguousarray(features[0].T) for features, _ in speech_features]


def heard(recordings: list[Array], most_rows: int, keep: int, step: int = 1) -> RunningStatistics:
    running = RunningStatistics("x", recordings[0].shape[1], most_rows)
    for frames in recordings:
        running.add(frames.min(axis=0), frames.max(axis=0), len(frames), frames[::step], keep=keep)
    return running


def test_ranges_are_exact_over_all_recordings(recordings: list[Array]) -> None:
    everything = np.concatenate(recordings)
    found = heard(recordings, 16, 2).result(99.9)
    np.testing.assert_array_equal(found.low, everything.min(axis=0))
    np.testing.assert_array_equal(found.high, everything.max(axis=0))
    np.testing.assert_array_equal(found.abs_max, np.abs(everything).max(axis=0))
    assert found.frames == len(everything)


def test_percentiles_lie_below_the_largest_and_near_those_of_all_frames(recordings: list[Array]) -> None:
    everything = np.abs(np.concatenate(recordings))
    found = heard(recordings, 16, 2).result(99)
    assert (found.percentile <= found.abs_max).all()
    np.testing.assert_allclose(found.percentile, np.percentile(everything, 99, axis=0), rtol=0.125)  # half a bin
    assert found.clip == pytest.approx(float(np.percentile(everything, 99)), rel=0.02)


def test_rows_of_a_long_recording_count_for_those_between_them(recordings: list[Array]) -> None:
    short, long = recordings[0][:90], np.concatenate(recordings[1:])
    assert len(long) > 10 * len(short)
    found = RunningStatistics("x", short.shape[1], 8)
    for frames, step in ((short, 1), (long, 10)):
        found.add(frames.min(axis=0), frames.max(axis=0), len(frames), frames[::step], keep=1)
    everything = np.abs(np.concatenate([short, long]))
    # one row in ten stands for the rest: 10,000 numbers at least, whose percentile is known to some percent
    assert found.result(90).clip == pytest.approx(float(np.percentile(everything, 90)), rel=0.04)


def test_kept_rows_are_frames_from_the_middles_of_equal_parts(recordings: list[Array]) -> None:
    frames = recordings[0][:12]
    found = heard([frames], 8, 3).result(99)
    np.testing.assert_array_equal(found.rows, frames[[2, 6, 10]])


def test_no_more_rows_are_kept_than_asked_for(recordings: list[Array]) -> None:
    assert len(heard(recordings, 5, 2).result(99).rows) == min(5, 2 * len(recordings))
    assert len(heard([recordings[0][:3]], 50, 20).result(99).rows) == 3
    assert len(heard(recordings, 5, 0).result(99).rows) == 0


def test_memory_is_the_same_after_one_pass_and_after_ten(recordings: list[Array]) -> None:
    tracemalloc.start()
    try:
        running = heard(recordings, 16, 16)
        after_one = tracemalloc.get_traced_memory()[0]
        for frames in recordings * 9:
            running.add(frames.min(axis=0), frames.max(axis=0), len(frames), frames, keep=16)
        assert tracemalloc.get_traced_memory()[0] < after_one + 10_000  # a pass is 100 kB
    finally:
        tracemalloc.stop()

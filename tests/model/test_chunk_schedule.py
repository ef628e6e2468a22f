from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from artifacts.errors import StepError
from artifacts.model.chunk_schedule import ChunkSchedule, read_chunk_schedule

SCHEDULE = ChunkSchedule(
    first_chunk_frames=105,
    first_shift_frames=105,
    chunk_frames=112,
    shift_frames=112,
    pre_encode_frames=9,
    first_least_frames=1,
    least_frames=8,
    subsampling_factor=8,
    output_frames=14,
)
METADATA = {key: str(value) for key, value in asdict(SCHEDULE).items()}


@pytest.mark.parametrize(
    ("frames", "windows"),
    [
        (0, []),
        (1, [(0, 1, True)]),
        (105, [(0, 105, True)]),
        (112, [(0, 105, True)]),  # a rest of seven is not encoded
        (113, [(0, 105, False), (96, 113, True)]),
        (217, [(0, 105, False), (96, 217, True)]),
        (230, [(0, 105, False), (96, 217, False), (208, 230, True)]),
    ],
)
def test_a_stream_is_cut_as_nemo_cuts_it(frames: int, windows: list[tuple[int, int, bool]]) -> None:
    assert list(SCHEDULE.windows(frames)) == windows


def test_windows_may_overlap() -> None:
    overlapping = replace(SCHEDULE, first_shift_frames=49, shift_frames=56)
    assert list(overlapping.windows(200)) == [(0, 105, False), (40, 161, False), (96, 200, False), (152, 200, True)]


def test_zeros_stand_for_what_is_not_there_before_a_short_first_chunk() -> None:
    one_frame = ChunkSchedule(1, 1, 8, 8, 9, 1, 8, 8, 1)
    assert list(one_frame.windows(18)) == [(0, 1, False), (-8, 9, False), (0, 17, True)]


def test_metadata_are_read() -> None:
    assert read_chunk_schedule({**METADATA, "other": "x"}, "encoder.onnx") == SCHEDULE


@pytest.mark.parametrize("key", sorted(METADATA))
def test_each_key_is_needed(key: str) -> None:
    with pytest.raises(StepError, match=f"encoder.onnx: metadata: {key}: expected a number, got ''"):
        read_chunk_schedule({name: value for name, value in METADATA.items() if name != key}, "encoder.onnx")


@pytest.mark.parametrize("key", ["first_shift_frames", "shift_frames", "first_least_frames", "least_frames"])
def test_a_stream_that_would_not_end_is_refused(key: str) -> None:
    with pytest.raises(StepError, match="never end"):
        read_chunk_schedule({**METADATA, key: "0"}, "encoder.onnx")
    with pytest.raises(StepError, match=f"{key}: expected a number, got '-1'"):
        read_chunk_schedule({**METADATA, key: "-1"}, "encoder.onnx")

from __future__ import annotations

import resource

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.untrusted.bounded_memory import SLACK_BYTES, bounded_memory, bytes_for_model, bytes_for_speech


def test_what_takes_less_is_done_and_what_takes_more_is_refused() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded_memory(1 << 30, "m.onnx"):
        assert len(np.ones(1 << 24)) == 1 << 24
    with pytest.raises(StepError, match=r"m\.onnx: takes more than 1\.0 GiB"), bounded_memory(1 << 30, "m.onnx"):
        np.ones(1 << 28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(np.empty(1 << 28)) == 1 << 28


def test_another_error_is_passed_on_and_the_bound_is_gone() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(KeyError), bounded_memory(1 << 30, "m.onnx"):
        raise KeyError("own")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_the_bounds_leave_room_for_what_sound_models_take() -> None:
    assert bytes_for_model(0) == SLACK_BYTES
    assert bytes_for_model(2_400_000_000) > 4 * 2_400_000_000
    assert bytes_for_speech(1) < 2**31
    # Four minutes of the embedded encoder take 4 GiB in ncnn, which holds the scores of a layer at once.
    assert bytes_for_speech(240) > 8 * 2**30

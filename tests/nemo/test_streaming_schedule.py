from __future__ import annotations

from typing import Any

import pytest
import torch

from artifacts.errors import StepError
from artifacts.nemo.streaming_schedule import Wishes, schedule
from streaming_targets import restored_streaming_model, stream_with_nemo

NAME = "tiny-streaming.nemo"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return restored_streaming_model(tmp_path_factory.mktemp("unpacked"))


def test_the_checkpoints_own_schedule_is_nemos(model: Any) -> None:
    planned = schedule(model, Wishes(), NAME)
    settings = model.encoder.streaming_cfg
    assert [planned.first_chunk_frames, planned.chunk_frames] == settings.chunk_size == [105, 112]
    assert [planned.first_shift_frames, planned.shift_frames] == settings.shift_size == [105, 112]
    assert [0, planned.pre_encode_frames] == settings.pre_encode_cache_size == [0, 9]
    assert [planned.first_least_frames, planned.least_frames] == model.encoder.pre_encode.get_sampling_frames()
    assert (planned.cache_size, planned.cache_drop_size, planned.output_frames) == (70, 0, 14)
    assert planned.metadata["chunk_frames"] == "112"


def test_nemos_own_way_to_choose_a_context_gives_the_same_settings(model: Any) -> None:
    for context in ([70, 6], [70, 13]):
        model.encoder.set_default_att_context_size(context)
        wanted = model.encoder.streaming_cfg
        schedule(model, Wishes(right_context=context[1]), NAME)
        assert model.encoder.streaming_cfg == wanted
        assert model.encoder.att_context_size == context


@pytest.mark.parametrize(
    ("wishes", "chunk", "shift", "cache"),
    [
        (Wishes(right_context=6), 56, 56, 70),
        (Wishes(left_context=70, right_context=6), 56, 56, 70),
        (Wishes(right_context=6, chunk_frames=112), 112, 112, 70),
        (Wishes(cache_size=84), 112, 112, 84),
        (Wishes(experimental=True, shift_frames=56), 112, 56, 70),
        (Wishes(experimental=True, left_context=28, right_context=3), 32, 32, 28),
        (Wishes(experimental=True, chunk_frames=40), 40, 40, 70),
    ],
)
def test_wishes_are_followed(model: Any, wishes: Wishes, chunk: int, shift: int, cache: int) -> None:
    planned = schedule(model, wishes, NAME)
    assert (planned.chunk_frames, planned.shift_frames, planned.cache_size) == (chunk, shift, cache)
    assert planned.cache_drop_size == (chunk - shift) // 8
    steps = stream_with_nemo(model, [torch.zeros(1, 128, 3 * chunk)])
    assert steps[1].window.shape[2] == chunk + 9
    assert steps[0].caches[0].shape[2] == cache
    schedule(model, Wishes(), NAME)


@pytest.mark.parametrize(
    ("wishes", "fact"),
    [
        (Wishes(right_context=4), r"context \[70, 4\]: it was trained with \[70, 13\], \[70, 6\]"),
        (Wishes(left_context=14), r"context \[14, 13\]: it was trained with"),
        (Wishes(chunk_frames=100), "chunk_frames: 100 features make no whole number of encoder frames"),
        (Wishes(chunk_frames=56), "chunk_frames 56, .*not what it was trained with"),
        (Wishes(shift_frames=56), "shift_frames 56, .*not what it was trained with"),
        (Wishes(cache_size=56), "cache_size 56, .*not what it was trained with"),
        (Wishes(cache_size=71), "cache_size 71, .*not what it was trained with"),
        (Wishes(cache_drop_size=1), "cache_drop_size 1: not what it was trained with"),
        (Wishes(experimental=True, shift_frames=224), "more is passed over or dropped than a chunk has"),
        (Wishes(experimental=True, cache_drop_size=14), "more is passed over or dropped than a chunk has"),
    ],
)
def test_what_the_checkpoint_was_not_trained_for_is_refused(model: Any, wishes: Wishes, fact: str) -> None:
    with pytest.raises(StepError, match=fact):
        schedule(model, wishes, NAME)


def test_an_offline_checkpoint_is_refused_with_the_reasons(restored_model: Any) -> None:
    with pytest.raises(StepError, match=r"attention looks over the whole recording \(att_context_size \[-1, -1\]\)"):
        schedule(restored_model, Wishes(), "tiny.nemo")


def test_each_thing_that_makes_a_checkpoint_offline_is_told(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.encoder, "conv_context_size", [4, 4])
    with pytest.raises(StepError, match=r"convolutions look ahead \(conv_context_size \[4, 4\]\); in chunks"):
        schedule(model, Wishes(), NAME)
    monkeypatch.undo()
    monkeypatch.setattr(model.encoder, "att_context_style", "regular")
    with pytest.raises(StepError, match=r"attention is not in chunks \(att_context_style 'regular'\); in chunks"):
        schedule(model, Wishes(), NAME)
    monkeypatch.undo()
    monkeypatch.setitem(model.cfg.encoder, "causal_downsampling", False)
    with pytest.raises(StepError, match=r"subsampling looks ahead \(causal_downsampling false\); in chunks"):
        schedule(model, Wishes(), NAME)
    monkeypatch.undo()
    monkeypatch.setitem(model.cfg.preprocessor, "normalize", "per_feature")
    with pytest.raises(StepError, match=r"normalised over the whole recording \(normalize 'per_feature'\); in chunks"):
        schedule(model, Wishes(), NAME)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from artifacts.errors import StepError
from artifacts.speech.corpus import read_corpus
from artifacts.speech.frontend import Preprocessor
from artifacts.speech.streaming_encoder import StreamingEncoder
from streaming_targets import streaming

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = "encoder-model.onnx"


@pytest.fixture(scope="module")
def features(evaluation: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Twenty seconds of real speech."""
    corpus = read_corpus(evaluation, ("long_20s",))
    preprocess = Preprocessor(streaming("preprocessor") / "preprocessor.onnx", threads=1)
    return preprocess.features(corpus.waveform(corpus.utterances[0]))


def test_a_stream_gives_a_chunk_of_frames_at_a_time(features: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    encoder = StreamingEncoder(streaming("streaming_encoder_fp32") / MODEL, threads=1)
    chunks = list(encoder.chunks(*features))
    assert len(chunks) == 1 + -(-(int(features[1][0]) - 105) // 112)
    assert {chunk.shape for chunk in chunks[:-1]} == {(14, 96)}
    assert 1 <= len(chunks[-1]) <= 14


def test_what_comes_later_changes_nothing_of_a_chunk(features: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    encoder = StreamingEncoder(streaming("streaming_encoder_fp32") / MODEL, threads=1)
    whole = list(encoder.chunks(*features))
    shorter = list(encoder.chunks(features[0][:, :, :800], np.array([105 + 5 * 112])))
    assert len(shorter) == 6
    for early, late in zip(shorter, whole, strict=False):
        assert np.array_equal(early, late)


def test_both_layouts_give_the_same_frames(features: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    first, second = (
        np.concatenate(list(StreamingEncoder(streaming(target) / MODEL, 1).chunks(*features)))
        for target in ("streaming_encoder_fp32", "streaming_encoder_batch_first")
    )
    np.testing.assert_allclose(first, second, atol=1e-5, rtol=0)


def test_another_chunk_schedule_may_be_given(features: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    model = streaming("streaming_encoder_fp32") / MODEL
    own = StreamingEncoder(model, 1).schedule
    longer = StreamingEncoder(model, 1, replace(own, first_chunk_frames=121, first_shift_frames=121, output_frames=16))
    assert [len(chunk) for chunk in longer.chunks(*features)][:3] == [16, 14, 14]


def test_an_offline_encoder_is_refused(encoder_fp32: Path) -> None:
    with pytest.raises(StepError, match="has the inputs audio_signal, length; needs audio_signal, cache_last_channel"):
        StreamingEncoder(encoder_fp32 / MODEL, 1)


def test_a_graph_that_does_not_say_how_it_is_fed_is_refused(tmp_path: Path) -> None:
    model = onnx.load(streaming("streaming_encoder_fp32") / MODEL)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / MODEL)
    with pytest.raises(StepError, match="metadata: first_chunk_frames: expected a number, got ''"):
        StreamingEncoder(tmp_path / MODEL, 1)


def test_an_error_of_the_runtime_names_the_window(
    features: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    encoder = StreamingEncoder(streaming("streaming_encoder_fp32") / MODEL, 1)
    with pytest.raises(StepError, match="fails on the window 0 to 105 of a stream"):
        list(encoder.chunks(features[0][:, :80], features[1]))

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import load, save

from artifacts.errors import StepError
from artifacts.speech.corpus import read_corpus
from artifacts.speech.decoding import DecodingSettings, read_decoding
from artifacts.speech.frontend import OnnxEncoder, Preprocessor
from artifacts.speech.transducer import FusedTransducer, SeparateTransducer


@pytest.fixture(scope="module")
def decoding(model_meta: Path) -> DecodingSettings:
    return read_decoding(model_meta / "model_meta.json")


@pytest.fixture(scope="module")
def frames(evaluation: Path, preprocessor: Path, encoder_fp32: Path) -> np.ndarray:
    corpus = read_corpus(evaluation)
    preprocess = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    encode = OnnxEncoder(encoder_fp32 / "encoder-model.onnx", threads=1)
    return encode.frames(*preprocess.features(corpus.waveform(corpus.utterances[0])))


@pytest.fixture(scope="module")
def fused(decoder_joint_fp32: Path, decoding: DecodingSettings) -> FusedTransducer:
    return FusedTransducer(decoder_joint_fp32 / "decoder_joint-model.onnx", 1, decoding.blank_id)


def test_both_forms_score_alike_after_the_same_tokens(
    fused: FusedTransducer, frames: np.ndarray, decoding: DecodingSettings, predictor_fp32: Path, joint_fp32: Path
) -> None:
    separate = SeparateTransducer(
        predictor_fp32 / "predictor-model.onnx", joint_fp32 / "joint-model.onnx", 1, decoding.blank_id
    )
    fused.start()
    for position, frame in enumerate(frames):
        np.testing.assert_allclose(separate.logits(frame), fused.logits(frame), atol=1e-4)
        if position % 2:
            separate.accept(position % decoding.blank_id)
            fused.accept(position % decoding.blank_id)


def test_what_is_not_accepted_leaves_no_trace(fused: FusedTransducer, frames: np.ndarray) -> None:
    fused.start()
    first = fused.logits(frames[0])
    fused.logits(frames[-1])
    np.testing.assert_array_equal(fused.logits(frames[0]), first)
    fused.accept(3)
    assert np.abs(fused.logits(frames[0]) - first).max() > 1e-3
    fused.start()
    np.testing.assert_array_equal(fused.logits(frames[0]), first)


def test_a_state_of_unknown_size_is_refused(decoder_joint_fp32: Path, tmp_path: Path) -> None:
    model = load(decoder_joint_fp32 / "decoder_joint-model.onnx")
    state = next(value for value in model.graph.input if value.name == "input_states_1")
    state.type.tensor_type.shape.dim[0].dim_param = "L"
    save(model, tmp_path / "decoder_joint-model.onnx")
    with pytest.raises(StepError, match=r"input 'input_states_1' has the shape .* must be numbers") as raised:
        FusedTransducer(tmp_path / "decoder_joint-model.onnx", 1, 1)
    assert raised.value.fix == "export the model with static state dimensions"


def test_an_encoder_is_no_transducer(encoder_fp32: Path) -> None:
    with pytest.raises(StepError, match="has the inputs audio_signal, length; needs encoder_outputs"):
        FusedTransducer(encoder_fp32 / "encoder-model.onnx", 1, 1)

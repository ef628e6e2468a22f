from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.files.copy import copy_file
from artifacts.ncnn.param_file import read_param, write_param
from artifacts.ncnn.tdt_transducer import NcnnEncoder, NcnnTransducer, max_encoder_frames
from artifacts.speech.decoding import DecodingSettings, read_decoding
from artifacts.speech.frontend import OnnxEncoder
from artifacts.speech.greedy import decode
from artifacts.speech.transducer import SeparateTransducer
from ncnn_conversions import build_tdt

LENGTHS = [*range(1, 18), 63, 64, 65, 66, 71, 72, 73, 127, 129, 257, 511, 513, 1001, 1024, 2049, 3999, 4000]


@pytest.fixture(scope="module")
def encoder() -> NcnnEncoder:
    return NcnnEncoder(build_tdt("encoder_ncnn_fp32"), threads=1)


@pytest.fixture(scope="module")
def onnx_encoder(encoder_fp32: Path) -> OnnxEncoder:
    return OnnxEncoder(encoder_fp32 / "encoder-model.onnx", threads=1)


@pytest.fixture(scope="module")
def decoding(model_meta: Path) -> DecodingSettings:
    return read_decoding(model_meta / "model_meta.json")


@pytest.fixture(scope="module")
def transducer(decoding: DecodingSettings) -> NcnnTransducer:
    folders = build_tdt("predictor_ncnn_fp32"), build_tdt("joint_ncnn_fp32")
    return NcnnTransducer(*folders, decoding.blank_id)


@pytest.fixture(scope="module")
def onnx_transducer(predictor_fp32: Path, joint_fp32: Path, decoding: DecodingSettings) -> SeparateTransducer:
    files = predictor_fp32 / "predictor-model.onnx", joint_fp32 / "joint-model.onnx"
    return SeparateTransducer(*files, 1, decoding.blank_id)


@pytest.fixture(scope="module")
def minute(speech_features: Any) -> Any:
    """Features [1, 128, T] and their length [1] of the longest utterance of the fixture, a minute of speech."""
    return max(speech_features, key=lambda one: int(one[1][0]))


@pytest.mark.parametrize("frames", [*LENGTHS, None])
def test_speech_of_any_number_of_frames_is_encoded_as_onnx_does(
    frames: int | None, encoder: NcnnEncoder, onnx_encoder: OnnxEncoder, minute: Any
) -> None:
    features = np.ascontiguousarray(minute[0][:, :, : frames or int(minute[1][0])])
    length = np.array([features.shape[2]])
    want = onnx_encoder.frames(features, length)
    got = encoder.frames(features, length)
    assert got.shape == want.shape == (-(-features.shape[2] // 8), 96)
    assert float(np.abs(got - want).max()) <= 1e-4


def test_what_follows_the_valid_frames_changes_nothing(encoder: NcnnEncoder, speech_features: Any) -> None:
    features, lengths = speech_features[0]
    longer = np.concatenate([features, features], axis=2)
    np.testing.assert_array_equal(encoder.frames(longer, lengths), encoder.frames(features, lengths))


def test_speech_is_decoded_into_the_tokens_of_the_onnx_graphs(
    encoder: NcnnEncoder,
    transducer: NcnnTransducer,
    onnx_encoder: OnnxEncoder,
    onnx_transducer: SeparateTransducer,
    decoding: DecodingSettings,
    speech_features: Any,
) -> None:
    count = 0
    for features, lengths in speech_features:
        tokens = decode(transducer, encoder.frames(features, lengths), decoding)
        assert tokens == decode(onnx_transducer, onnx_encoder.frames(features, lengths), decoding)
        count += len(tokens)
    assert count > 200


def test_both_runtimes_score_alike_after_the_same_tokens(
    encoder: NcnnEncoder,
    transducer: NcnnTransducer,
    onnx_transducer: SeparateTransducer,
    decoding: DecodingSettings,
    minute: Any,
) -> None:
    transducer.start()
    onnx_transducer.start()
    for position, frame in enumerate(encoder.frames(minute[0], np.array([800]))):
        np.testing.assert_allclose(transducer.logits(frame), onnx_transducer.logits(frame), atol=1e-4)
        if position % 2:
            transducer.accept(position % decoding.blank_id)
            onnx_transducer.accept(position % decoding.blank_id)


def test_what_is_not_accepted_leaves_no_trace(encoder: NcnnEncoder, transducer: NcnnTransducer, minute: Any) -> None:
    frames = encoder.frames(minute[0], np.array([800]))
    transducer.start()
    first = transducer.logits(frames[0])
    transducer.logits(frames[-1])
    np.testing.assert_array_equal(transducer.logits(frames[0]), first)
    transducer.accept(3)
    assert np.abs(transducer.logits(frames[0]) - first).max() > 1e-3
    transducer.start()
    np.testing.assert_array_equal(transducer.logits(frames[0]), first)


def test_the_table_of_positions_bounds_the_length_of_an_utterance(encoder: NcnnEncoder, minute: Any) -> None:
    path = build_tdt("encoder_ncnn_fp32") / "encoder.ncnn.param"
    assert encoder.max_frames == max_encoder_frames(read_param(path), path.name) == 3750  # 300 s
    longer = np.concatenate([minute[0]] * 5, axis=2)
    with pytest.raises(StepError, match="3751 encoder frames, and the table of positions allows 3750") as raised:
        encoder.frames(longer, np.array([30_001]))
    assert raised.value.fix == "trace the encoder with a larger max_seconds, or leave the recording out"


def test_an_encoder_that_gives_other_frames_than_its_features_have_is_refused(minute: Any, tmp_path: Path) -> None:
    source = build_tdt("encoder_ncnn_fp32") / "encoder.ncnn.param"
    file = read_param(source)
    last = file.layers[-1]
    assert (last.type, last.params) == ("Permute", {0: 1})
    write_param(replace(file, layers=(*file.layers[:-1], replace(last, params={0: 0}))), tmp_path / source.name)
    copy_file(source.with_suffix(".bin"), tmp_path / "encoder.ncnn.bin")
    with pytest.raises(StepError, match=r"gives 96 frames for 800 features, not 100"):
        NcnnEncoder(tmp_path, threads=1).frames(minute[0], np.array([800]))


def test_networks_in_each_others_place_are_refused() -> None:
    predictor, joint = build_tdt("predictor_ncnn_fp32"), build_tdt("joint_ncnn_fp32")
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: has 2 inputs and 1 outputs, not 3 and 3"):
        NcnnTransducer(joint, predictor, blank_id=128)
    with pytest.raises(StepError, match=r"predictor\.ncnn\.param: has 3 inputs and 3 outputs, not 1 and 1"):
        NcnnEncoder(predictor, threads=1)
    path = joint / "joint.ncnn.param"
    with pytest.raises(StepError, match="contains no MemoryData layer"):
        max_encoder_frames(read_param(path), path.name)

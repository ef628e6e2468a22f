from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, parser, save

from artifacts.errors import StepError
from artifacts.speech.corpus import read_corpus
from artifacts.speech.frontend import OnnxEncoder, Preprocessor


def test_speech_gives_as_many_frames_as_the_encoders_length(
    evaluation: Path, preprocessor: Path, encoder_fp32: Path
) -> None:
    corpus = read_corpus(evaluation)
    preprocess = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    encode = OnnxEncoder(encoder_fp32 / "encoder-model.onnx", threads=1)
    for utterance in corpus.evenly_spread(1):
        if utterance.duration > 70:
            continue
        waveform = corpus.waveform(utterance)
        features, lengths = preprocess.features(waveform)
        assert features.dtype == np.float32
        assert features.shape[:2] == (1, 128)
        assert lengths.tolist() == [len(waveform) // 160]  # 10 ms at 16 kHz
        frames = encode.frames(features, lengths)
        assert len(frames) == -(-int(lengths[0]) // 8)  # subsampling by 8
        assert frames.flags.c_contiguous


def test_an_utterance_is_encoded_the_same_after_any_other(
    evaluation: Path, preprocessor: Path, encoder_int8: Path
) -> None:
    corpus = read_corpus(evaluation)
    preprocess = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    encode = OnnxEncoder(encoder_int8 / "encoder-model.onnx", threads=1)
    first, second = (preprocess.features(corpus.waveform(utterance)) for utterance in corpus.utterances[:2])
    alone = encode.frames(*first)
    encode.frames(*second)
    np.testing.assert_array_equal(encode.frames(*first), alone)


@pytest.mark.parametrize("samples", [1, 160, 1300])
def test_a_clip_of_a_few_milliseconds_is_no_trouble(
    evaluation: Path, preprocessor: Path, encoder_fp32: Path, samples: int
) -> None:
    corpus = read_corpus(evaluation)
    waveform = corpus.waveform(corpus.utterances[0])[16_000 : 16_000 + samples]
    features = Preprocessor(preprocessor / "preprocessor.onnx", threads=1).features(waveform)
    frames = OnnxEncoder(encoder_fp32 / "encoder-model.onnx", threads=1).frames(*features)
    assert len(frames) == 1
    assert np.isfinite(frames).all()


def test_a_recording_beyond_the_table_of_positions_is_refused(
    evaluation: Path, preprocessor: Path, encoder_fp32: Path
) -> None:
    corpus = read_corpus(evaluation, ["long_240s"])
    twice = np.concatenate([corpus.waveform(utterance) for utterance in corpus.utterances[:2]])
    features = Preprocessor(preprocessor / "preprocessor.onnx", threads=1).features(twice)
    with pytest.raises(StepError, match=r"encoder-model\.onnx: fails on 4\d{4} features: .*") as raised:
        OnnxEncoder(encoder_fp32 / "encoder-model.onnx", threads=1).frames(*features)
    assert "400 s" in raised.value.fix


def test_a_length_beyond_the_frames_is_refused(tmp_path: Path) -> None:
    """An encoder that returns its input, with a length of one frame more."""
    audio, frames = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, "t"])
        for name in ("audio_signal", "encoder_output")
    )
    length, encoded = (
        helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("length", "encoded_lengths")
    )
    nodes = [
        helper.make_node("Identity", ["audio_signal"], ["encoder_output"]),
        helper.make_node("Add", ["length", "one"], ["encoded_lengths"]),
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "encoder", [audio, length], [frames, encoded], [one])
    save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
        tmp_path / "encoder-model.onnx",
    )
    with pytest.raises(StepError, match=r"encoder-model\.onnx: gives 4 frames and says 5 for 4 features"):
        OnnxEncoder(tmp_path / "encoder-model.onnx", 1).frames(np.zeros((1, 2, 4), dtype=np.float32), np.array([4]))


def write_preprocessor(path: Path, features: str, lengths: str) -> Path:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[B, N] waveforms, int64[B] waveforms_lens) => (float[B, F, T] features, int64[B] features_lens) {{
        axes = Constant<value = int64[1] {{1}}>()
        a = Unsqueeze(waveforms, axes)
        features = {features}
        features_lens = {lengths}
    }}"""
    save(parser.parse_model(text), path)
    return path


@pytest.mark.parametrize(
    ("features", "lengths", "fact"),
    [
        ("Identity(a)", "Neg(waveforms_lens)", "gives 8 features and says -8"),
        ("Identity(a)", "Add(waveforms_lens, axes)", "gives 8 features and says 9"),
        ("Unsqueeze(a, axes)", "Identity(waveforms_lens)", r"gives the output 'features' as float32 \[1, 1, 1, 8\]"),
    ],
)
def test_a_preprocessor_that_contradicts_itself_is_refused(
    tmp_path: Path, features: str, lengths: str, fact: str
) -> None:
    path = write_preprocessor(tmp_path / "p.onnx", features, lengths)
    with pytest.raises(StepError, match=rf"p\.onnx: {fact}"):
        Preprocessor(path, threads=1).features(np.zeros(8, np.float32))

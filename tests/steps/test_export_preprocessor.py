from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from artifacts.speech.corpus import read_corpus
from artifacts.steps.export_preprocessor import Params

BOUND = 2e-3
"""From NeMo. Where speech is quiet, most of it is NeMo's own error: see the bound from float64."""
FLOAT64_BOUND = 5e-4


@pytest.fixture(scope="session")
def preprocess(exports: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exports.folder / "preprocessor" / "preprocessor.onnx")


@pytest.mark.parametrize(
    ("params", "is_good"),
    [({}, True), ({"opset": 20}, True), ({"opset": 16}, False), ({"opset": 21}, False), ({"dither": 0.0}, False)],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params(**params)
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_there_is_one_valid_file_and_its_difference_was_measured(exports: Any) -> None:
    path = exports.folder / "preprocessor" / "preprocessor.onnx"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    onnx.checker.check_model(str(path), full_check=True)
    assert 0 < exports.metrics["preprocessor"]["features_max_abs_diff"] < 1e-3


def test_inputs_and_outputs_are_named_typed_and_shaped_as_promised(preprocess: onnxruntime.InferenceSession) -> None:
    assert [(v.name, v.type, v.shape) for v in preprocess.get_inputs()] == [
        ("waveforms", "tensor(float)", ["batch", "samples"]),
        ("waveforms_lens", "tensor(int64)", ["batch"]),
    ]
    assert [(v.name, v.type, v.shape) for v in preprocess.get_outputs()] == [
        ("features", "tensor(float)", ["batch", 128, "frames"]),
        ("features_lens", "tensor(int64)", ["batch"]),
    ]


def test_operators_are_such_as_run_on_a_gpu_in_a_browser(exports: Any) -> None:
    graph = onnx.load(exports.folder / "preprocessor" / "preprocessor.onnx").graph
    assert not {node.op_type for node in graph.node} & {"STFT", "DFT", "MelWeightMatrix", "HannWindow", "RandomNormal"}


def _in_float64(waveform: np.ndarray, featurizer: Any) -> np.ndarray:
    """The features of Parakeet's settings, computed in float64 from their definition: [1, 128, frames]."""
    signal = torch.from_numpy(waveform).double()
    signal = torch.cat((signal[:1], signal[1:] - featurizer.preemph * signal[:-1]))
    spectrum = torch.stft(
        signal, featurizer.n_fft, featurizer.hop_length, featurizer.win_length, featurizer.window.double(),
        center=True, pad_mode="constant", return_complex=True,
    )  # fmt: skip
    mel = torch.log(featurizer.fb.double() @ spectrum.abs().square() + 2**-24)[:, :, : len(waveform) // 160]
    return ((mel - mel.mean(2, keepdim=True)) / (mel.std(2, keepdim=True) + 1e-5)).numpy()


@pytest.mark.parametrize("name", ["clean", "soft_endings", "long_60s"])
def test_features_of_speech_are_near_a_computation_in_float64(
    name: str, preprocess: onnxruntime.InferenceSession, restored_model: Any, evaluation: Path
) -> None:
    corpus = read_corpus(evaluation, (name,))
    for utterance in corpus.evenly_spread(12):
        waveform = corpus.waveform(utterance)
        feeds = {"waveforms": waveform[None], "waveforms_lens": np.array([len(waveform)])}
        (features,) = preprocess.run(["features"], feeds)
        want = _in_float64(waveform, restored_model.preprocessor.featurizer)
        assert np.max(np.abs(features[:, :, : want.shape[2]] - want)) < FLOAT64_BOUND


@pytest.mark.parametrize("name", ["clean", "soft_endings", "long_20s", "long_60s"])
def test_features_of_speech_are_nemos(
    name: str, preprocess: onnxruntime.InferenceSession, restored_model: Any, evaluation: Path
) -> None:
    corpus = read_corpus(evaluation, (name,))
    for utterance in corpus.evenly_spread(5):
        waveform = corpus.waveform(utterance)
        length = np.array([len(waveform)])
        features, lengths = preprocess.run(None, {"waveforms": waveform[None], "waveforms_lens": length})
        want, want_lengths = restored_model.preprocessor(
            input_signal=torch.from_numpy(waveform)[None], length=torch.from_numpy(length)
        )
        assert lengths.tolist() == want_lengths.tolist() == [len(waveform) // 160]
        assert features.shape == tuple(want.shape) == (1, 128, len(waveform) // 160 + 1)
        difference = np.abs(features - want.numpy())
        assert difference.max() < BOUND
        assert difference.mean() < 1e-5


def test_features_of_speech_are_those_of_onnx_asrs_own_preprocessor(
    preprocess: onnxruntime.InferenceSession, evaluation: Path
) -> None:
    import onnx_asr

    own = Path(onnx_asr.__file__).parent / "preprocessors" / "data" / "nemo128.onnx"
    theirs = onnxruntime.InferenceSession(own)
    assert [(v.name, v.type) for v in theirs.get_inputs()] == [(v.name, v.type) for v in preprocess.get_inputs()]
    assert [(v.name, v.type) for v in theirs.get_outputs()] == [(v.name, v.type) for v in preprocess.get_outputs()]
    corpus = read_corpus(evaluation, ("clean",))
    for utterance in corpus.evenly_spread(3):
        waveform = corpus.waveform(utterance)
        feeds = {"waveforms": waveform[None], "waveforms_lens": np.array([len(waveform)])}
        (have, lengths), (want, want_lengths) = preprocess.run(None, feeds), theirs.run(None, feeds)
        assert lengths.tolist() == want_lengths.tolist()
        assert np.max(np.abs(have - want)) < BOUND

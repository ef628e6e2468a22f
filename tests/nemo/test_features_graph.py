from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from artifacts.errors import StepError
from artifacts.nemo.features_graph import build_features_graph, read_settings
from artifacts.speech.corpus import read_corpus


@pytest.fixture(scope="session")
def waveforms(evaluation: Path) -> tuple[np.ndarray, np.ndarray]:
    """Real speech in one batch: float32 [4, N] and its lengths [4], the last cut to less than one frame."""
    corpus = read_corpus(evaluation, ("clean", "soft_endings", "long_20s"))
    clips = [corpus.waveform(utterance) for utterance in corpus.evenly_spread(1)]
    clips.append(clips[0][:150])
    lengths = np.array([len(clip) for clip in clips])
    return np.stack([np.pad(clip, (0, lengths.max() - len(clip))) for clip in clips]), lengths


def _run(model: onnx.ModelProto, waveforms: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(
        ["features", "features_lens"], {"waveforms": waveforms, "waveforms_lens": lengths}
    )
    return outputs


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"preemph": None},
        {"normalize": "NA"},
        {"normalize": None, "pad_value": -16.0},
        {"mag_power": 1.0},
        {"window": "hamming", "window_size": 0.032},
        {"n_fft": None, "features": 80, "window_stride": 0.0125},
        {"log_zero_guard_value": "eps"},
    ],
)
def test_features_of_speech_are_nemos_whatever_the_settings(
    changed: dict[str, Any], nemo_preprocessor: Callable[..., Any], waveforms: tuple[Any, Any]
) -> None:
    preprocessor = nemo_preprocessor(**changed)
    model = build_features_graph(read_settings(preprocessor, "a.nemo"), 17)
    onnx.checker.check_model(model, full_check=True)
    features, lengths = _run(model, *waveforms)
    want, want_lengths = preprocessor(
        input_signal=torch.from_numpy(waveforms[0]), length=torch.from_numpy(waveforms[1])
    )
    assert lengths.dtype == np.int64
    assert lengths.tolist() == want_lengths.tolist()
    assert features.shape == tuple(want.shape)
    assert np.max(np.abs(features - want.numpy())) < 2e-3  # NeMo's own error included
    assert np.mean(np.abs(features - want.numpy())) < 1e-5


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 320, 16_000])
def test_there_are_as_many_frames_as_nemo_has(samples: int, nemo_preprocessor: Callable[..., Any]) -> None:
    preprocessor = nemo_preprocessor()
    model = build_features_graph(read_settings(preprocessor, "a.nemo"), 17)
    waveform, length = np.full((1, samples), 0.1, np.float32), np.array([samples])
    features, lengths = _run(model, waveform, length)
    assert features.shape == (1, 128, samples // 160 + 1)
    assert lengths.tolist() == [samples // 160]
    assert np.isfinite(features).all()
    if samples:  # NeMo itself cannot take an empty waveform
        want, want_lengths = preprocessor(input_signal=torch.from_numpy(waveform), length=torch.from_numpy(length))
        assert (features.shape, lengths.tolist()) == (tuple(want.shape), want_lengths.tolist())


def test_training_leaves_nothing_in_the_graph(nemo_preprocessor: Callable[..., Any]) -> None:
    plain, trained = (
        build_features_graph(read_settings(nemo_preprocessor(**changed), "a.nemo"), 17).SerializeToString()
        for changed in ({"dither": 0.0}, {"dither": 0.5, "pad_to": 16})
    )
    assert plain == trained


def test_window_and_filterbank_are_the_checkpoints_own(restored_model: Any) -> None:
    featurizer = restored_model.preprocessor.featurizer
    settings = read_settings(restored_model.preprocessor, "tiny.nemo")
    assert np.array_equal(settings.window, featurizer.window.numpy())
    assert np.array_equal(settings.filterbank, featurizer.fb[0].numpy())
    assert settings.filterbank.shape == (128, settings.fft_samples // 2 + 1)


def test_numbers_are_what_nemo_makes_of_the_settings(nemo_preprocessor: Callable[..., Any]) -> None:
    settings = read_settings(nemo_preprocessor(preemph=0.9, log_zero_guard_value="eps", normalize="NA"), "a.nemo")
    assert (settings.hop_samples, settings.fft_samples, len(settings.window)) == (160, 512, 400)
    assert (settings.preemphasis, settings.squared, settings.normalize_per_feature) == (0.9, True, False)
    assert settings.log_add == np.finfo(np.float32).eps
    assert read_settings(nemo_preprocessor(), "a.nemo").log_add == 2**-24


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"exact_pad": True}, "exact_pad"),
        ({"n_fft": 401}, "n_fft"),
        ({"mag_power": 1.5}, "mag_power"),
        ({"log": False}, "log"),
        ({"log_zero_guard_type": "clamp"}, "log_zero_guard_type"),
        ({"frame_splicing": 3}, "frame_splicing"),
        ({"normalize": "all_features"}, "normalize"),
        ({"normalize": {"fixed_mean": [0.0], "fixed_std": [1.0]}}, "normalize"),
    ],
)
def test_a_setting_without_a_graph_is_refused_by_its_key(
    changed: dict[str, Any], key: str, nemo_preprocessor: Callable[..., Any]
) -> None:
    with pytest.raises(StepError, match=rf"a\.nemo: preprocessor\.{key}: .* is not supported"):
        read_settings(nemo_preprocessor(**changed), "a.nemo")

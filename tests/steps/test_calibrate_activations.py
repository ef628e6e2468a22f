from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import soundfile
from onnx import TensorProto, helper, parser
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.quantization.activation_statistics import StatisticsReader
from artifacts.graph.quantization.weight_matmuls import weight_matmuls
from artifacts.speech.corpus import read_corpus
from artifacts.speech.frontend import Preprocessor
from artifacts.steps import calibrate_activations
from artifacts.steps.calibrate_activations import Params
from calibration_cases import copy_corpus, rewrite, save, with_scaled_channel
from quantised_models import Metrics, digests

Array = npt.NDArray[np.float32]

CLEAN = Params(slices=("clean",), long_seconds=None, percentile=99.0)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"slices": ["clean"], "min_seconds": 0, "long_seconds": null, "threads": 2}', True),
        ('{"percentile": 100, "rows_per_value": 256, "rows_per_recording": 1, "row_step": 1}', True),
        ('{"percentile": 50}', False),
        ('{"percentile": 100.1}', False),
        ('{"slices": []}', False),
        ('{"min_seconds": -1}', False),
        ('{"long_seconds": 0}', False),
        ('{"long_seconds": 301}', False),
        ('{"long_windows": 0}', False),
        ('{"rows_per_value": 0}', False),
        ('{"row_step": 0}', False),
        ('{"threads": 0}', False),
        ('{"method": "entropy"}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


@pytest.fixture(scope="module")
def inputs(encoder_fp32: Path, preprocessor: Path, calibration: Path) -> dict[str, Path]:
    return {"model": encoder_fp32, "preprocessor": preprocessor, "corpus": calibration}


@pytest.fixture(scope="module")
def calibrated(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    """The step's folder and metrics on clean speech."""
    out = tmp_path_factory.mktemp("calibrated")
    return out, calibrate_activations.run(out, CLEAN, **inputs)


@pytest.fixture(scope="module")
def activations(inputs: dict[str, Path]) -> dict[str, list[Array]]:
    """Every activation that is multiplied by a weight, whole: rows `[N, C]` for each recording of clean speech."""
    model = onnx.load(inputs["model"] / "encoder-model.onnx")
    channels = {matmul.activation: matmul.sizes[0] for matmul in weight_matmuls(model)}
    for value in channels:
        model.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    preprocess = Preprocessor(inputs["preprocessor"] / "preprocessor.onnx", threads=1)
    corpus = read_corpus(inputs["corpus"], ("clean",))
    found: dict[str, list[Array]] = {value: [] for value in channels}
    for utterance in corpus.utterances:
        features, lengths = preprocess.features(corpus.waveform(utterance))
        values = session.run(list(channels), {"audio_signal": features, "length": lengths})
        for (value, count), numbers in zip(channels.items(), values, strict=True):
            found[value].append(numbers.reshape(-1, count).copy())
    return found


def test_every_activation_that_is_multiplied_by_a_weight_is_measured_over_all_frames(
    calibrated: tuple[Path, Metrics], activations: dict[str, list[Array]]
) -> None:
    reader = StatisticsReader(calibrated[0])
    assert reader.values == list(activations)
    assert calibrated[1]["values"] == len(activations) == 32
    for value, recordings in activations.items():
        found, expected = reader.read(value), np.concatenate(recordings)
        assert found.frames == len(expected)
        # Other threads or fusions may decide the last bits.
        np.testing.assert_allclose(found.low, expected.min(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.high, expected.max(axis=0), rtol=1e-4, atol=1e-5)


def test_percentiles_are_near_those_of_all_frames(
    calibrated: tuple[Path, Metrics], activations: dict[str, list[Array]]
) -> None:
    reader = StatisticsReader(calibrated[0])
    for value, recordings in activations.items():
        found, magnitudes = reader.read(value), np.abs(np.concatenate(recordings))
        assert (found.percentile <= found.abs_max).all()
        expected = np.percentile(magnitudes, CLEAN.percentile, axis=0)
        ratios = found.percentile[expected > 0] / expected[expected > 0]
        assert 0.95 < np.median(ratios) < 1.1
        assert found.clip == pytest.approx(float(np.percentile(magnitudes, CLEAN.percentile)), rel=0.06)


def test_rows_are_frames_of_the_corpus_from_its_beginning_to_its_end(
    calibrated: tuple[Path, Metrics], activations: dict[str, list[Array]]
) -> None:
    reader = StatisticsReader(calibrated[0])
    for value in list(activations)[:3]:
        rows = reader.read(value).rows
        assert rows.shape[0] == CLEAN.rows_per_value
        everything = np.concatenate(activations[value])
        sources = np.repeat(np.arange(len(activations[value])), [len(one) for one in activations[value]])
        places = [int(np.abs(everything - row).max(axis=1).argmin()) for row in rows]
        np.testing.assert_allclose(rows, everything[places], rtol=1e-4, atol=1e-5)
        assert set(sources[places]) == set(sources)  # every recording has given one
        assert sorted(sources[places]) == list(sources[places])


def test_the_metrics_describe_the_speech(calibrated: tuple[Path, Metrics], inputs: dict[str, Path]) -> None:
    utterances = read_corpus(inputs["corpus"], ("clean",)).utterances
    metrics = calibrated[1]
    assert metrics["recordings"] == len(utterances)
    assert metrics["joined_windows"] == 0
    assert metrics["seconds"] == pytest.approx(sum(one.duration for one in utterances), abs=0.01)
    assert metrics["longest_seconds"] == pytest.approx(max(one.duration for one in utterances), abs=0.01)
    rows = StatisticsReader(calibrated[0]).read("/pre_encode/Reshape_output_0").frames
    assert rows - metrics["recordings"] <= metrics["frames"] <= rows  # a last row may be padding
    assert len(metrics["speech_sha256"]) == 64
    measured = StatisticsReader(calibrated[0]).measured
    assert {key: number for key, number in measured.items() if key not in ("percentile", "model_sha256")} == {
        key: number for key, number in metrics.items() if not key.startswith("outlier")
    }


def test_channels_that_were_scaled_up_show_as_outliers(
    calibrated: tuple[Path, Metrics], inputs: dict[str, Path], tmp_path: Path
) -> None:
    loud = with_scaled_channel(inputs["model"], tmp_path / "loud", "layers.2/norm_feed_forward1/", 300)
    metrics = calibrate(loud, inputs, tmp_path / "out", slices=("clean",), long_seconds=None)
    assert calibrated[1]["outlier_ratio_max"] < 10
    assert metrics["outlier_ratio_max"] > 100
    assert metrics["outlier_ratio_value"] == "/layers.2/norm_feed_forward1/LayerNormalization_output_0"


def test_short_clips_are_also_joined(inputs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = Params(slices=("clean",), long_seconds=30, long_windows=2)
    with caplog.at_level(logging.INFO, logger="artifacts.steps"):
        metrics = calibrate_activations.run(tmp_path, params, **inputs)
    assert (metrics["joined_windows"], metrics["recordings"]) == (2, 30)
    assert 30 <= float(metrics["longest_seconds"]) < 40
    last: Any = caplog.records[-1]
    assert (last.message, last.done, last.total) == ("calibrating", 30, 30)


def test_a_second_pass_over_the_same_speech_gives_the_same_bytes_anywhere(
    calibrated: tuple[Path, Metrics], inputs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    before = digests(inputs["model"])
    script = (
        "import sys; from pathlib import Path; from artifacts.steps import calibrate_activations as step\n"
        "params = step.Params.model_validate_json(sys.argv[1])\n"
        "model, preprocessor, corpus, out = map(Path, sys.argv[2:])\n"
        "print(step.run(out, params, model=model, preprocessor=preprocessor, corpus=corpus)['speech_sha256'])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2", "TMPDIR": str(tmp_path)}
    folders = [str(folder) for folder in (*inputs.values(), tmp_path / "out")]
    command = [sys.executable, "-W", "error", "-c", script, CLEAN.model_dump_json(), *folders]
    done = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() == calibrated[1]["speech_sha256"]
    assert digests(tmp_path / "out") == digests(calibrated[0])
    assert set(digests(calibrated[0])) == {"statistics.json", "statistics.npz"}
    assert digests(inputs["model"]) == before


@pytest.mark.parametrize(
    ("utterances", "fact"),
    [
        (0, r"few/utterances\.jsonl: contains no utterances"),
        (5, r"few: has 14\.9 s of speech, needs 60 s"),
    ],
)
def test_a_corpus_of_no_or_a_few_words_is_refused(
    inputs: dict[str, Path], tmp_path: Path, utterances: int, fact: str
) -> None:
    corpus = copy_corpus(inputs["corpus"], tmp_path / "few", utterances)
    with pytest.raises(StepError, match=fact):
        calibrate(inputs["model"], inputs | {"corpus": corpus}, tmp_path / "out")


def test_another_sample_rate_is_refused_with_the_clip(inputs: dict[str, Path], tmp_path: Path) -> None:
    corpus = copy_corpus(inputs["corpus"], tmp_path / "slow", 3)
    clip = corpus / "clips" / "clean-001.flac"
    soundfile.write(clip, soundfile.read(clip)[0][::2], 8000)
    with pytest.raises(StepError, match=r"slow/clips/clean-001\.flac: has 1 channel\(s\) at 8000 Hz"):
        calibrate(inputs["model"], inputs | {"corpus": corpus}, tmp_path / "out", min_seconds=0)


def test_samples_whose_squares_overflow_are_refused_with_the_clip(inputs: dict[str, Path], tmp_path: Path) -> None:
    corpus = copy_corpus(inputs["corpus"], tmp_path / "corpus", 2)
    rewrite(corpus, "clean-001", np.full(16_000, 1e30, np.float32))
    with pytest.raises(StepError, match=r"clean-001\.flac: the magnitude of a sample must be at most 1000, got 1e\+30"):
        calibrate(inputs["model"], inputs | {"corpus": corpus}, tmp_path / "out", min_seconds=0)


def test_a_recording_beyond_the_table_of_positions_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    corpus = copy_corpus(inputs["corpus"], tmp_path / "corpus", 2)
    clean = read_corpus(inputs["corpus"], ("clean",))
    waveform = np.concatenate([clean.waveform(utterance) for utterance in clean.utterances])
    rewrite(corpus, "clean-001", np.tile(waveform, 5))
    with pytest.raises(StepError, match=r"encoder-model\.onnx: fails on corpus: utterance 'clean-001': ") as caught:
        calibrate(inputs["model"], inputs | {"corpus": corpus}, tmp_path / "out")
    assert "400 s" in caught.value.fix


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["layers.2/norm_conv/", "layers.4/norm_out/"])
def test_activations_that_are_not_finite_are_refused(
    inputs: dict[str, Path], tmp_path: Path, number: float, place: str
) -> None:
    broken = with_scaled_channel(inputs["model"], tmp_path / "broken", place, number)
    with pytest.raises(StepError, match=r"calibration: utterance 'clean-000': .*: NaN or infinity"):
        calibrate(broken, inputs, tmp_path / "out")


def test_other_models_than_float32_encoders_are_refused(
    inputs: dict[str, Path], encoder_int8: Path, encoder_fp16_fixed: Path, decoder_joint_fp32: Path, tmp_path: Path
) -> None:
    without = """
    <ir_version: 8, opset_import: ["" : 17]>
    without (float[B, 128, T] audio_signal, int64[B] length)
         => (float[B, 128, T] encoder_output, int64[B] encoded_lengths) {
      encoder_output = Relu(audio_signal)
      encoded_lengths = Identity(length)
    }
    """
    for place, (model, fact) in enumerate(
        (
            (encoder_int8, r"encoder-model\.onnx: quantised already: node '.+' is a "),
            (encoder_fp16_fixed, r"encoder-model\.onnx: has fp16 tensors"),
            (decoder_joint_fp32, r"decoder_joint-model\.onnx: has the inputs .*; needs audio_signal, length"),
            (save(parser.parse_model(without), tmp_path / "none"), r"encoder-model\.onnx: 0 MatMuls by a weight"),
        )
    ):
        with pytest.raises(StepError, match=fact):
            calibrate(model, inputs, tmp_path / f"out{place}")
        assert not list((tmp_path / f"out{place}").iterdir())


def calibrate(model: Path, inputs: dict[str, Path], out: Path, **params: Any) -> Metrics:
    out.mkdir()
    return calibrate_activations.run(out, Params(**params), **(inputs | {"model": model}))

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.ncnn.param_file import find_net
from artifacts.ncnn.runtime import Net
from artifacts.ncnn.scale_table import read_table
from artifacts.speech.corpus import read_corpus
from artifacts.speech.sherpa_streaming import features
from artifacts.steps import calibrate_sherpa_ncnn, quantize_ncnn_int8, rewrite_ncnn_linears
from artifacts.steps.calibrate_sherpa_ncnn import Params
from calibration_cases import copy_corpus
from lstm_networks import DIM, HIDDEN, LAYERS, LstmNetworks

pytestmark = pytest.mark.slow

Inputs = dict[str, Path]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"activations": "absmax", "slices": ["clean"], "min_seconds": 0}', True),
        ('{"activations": "aciq"}', False),
        ('{"slices": []}', False),
        ('{"min_seconds": -1}', False),
        ('{"bins": 4096}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


@pytest.fixture(scope="module")
def few(calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of the first four clips of real speech."""
    return copy_corpus(calibration, tmp_path_factory.mktemp("speech") / "few", 4)


@pytest.fixture(scope="module")
def inputs(lstm: LstmNetworks, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """An LSTM transducer whose linear layers are InnerProducts."""
    encoder = tmp_path_factory.mktemp("linear")
    rewrite_ncnn_linears.run(encoder, rewrite_ncnn_linears.Params(), model=lstm.converted("encoder"))
    return {
        "encoder": encoder,
        "predictor": lstm.converted("predictor"),
        "joint": lstm.converted("joint"),
        "corpus": few,
    }


@pytest.fixture(scope="module")
def calibrated(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The step's folder and metrics, of scales that reach the largest magnitude."""
    out = tmp_path_factory.mktemp("tables")
    return out, calibrate_sherpa_ncnn.run(out, Params(min_seconds=0, activations="absmax"), **inputs)


def test_the_table_has_every_convolution_and_inner_product(calibrated: tuple[Path, dict[str, Any]], few: Path) -> None:
    out, metrics = calibrated
    assert sorted(path.name for path in out.iterdir()) == ["encoder.table", "joint.table"]
    assert (metrics["encoder_layers"], metrics["joint_layers"]) == (10, 3)
    for part, count in (("encoder", 10), ("joint", 3)):
        table = read_table(out / f"{part}.table")
        assert len(table.activations) == len(table.weights) == count
    corpus = read_corpus(few)
    assert metrics["utterances"] == 4
    assert metrics["seconds"] == pytest.approx(sum(each.duration for each in corpus.utterances), abs=0.01)
    assert metrics["tokens"] > 0
    assert len(metrics["speech_sha256"]) == 64


def test_the_first_scale_is_that_of_the_largest_feature(calibrated: tuple[Path, dict[str, Any]], few: Path) -> None:
    corpus = read_corpus(few)
    tail = np.zeros(8000, np.float32)
    extracted = [features(np.concatenate([corpus.waveform(each), tail])) for each in corpus.utterances]
    largest = max(float(np.abs(each[:-1]).max()) for each in extracted)  # the last frame is never reached
    first = next(iter(read_table(calibrated[0] / "encoder.table").activations.values()))
    assert first == pytest.approx(127 / largest, abs=1e-5)


def test_int8_by_the_table_is_close_on_other_speech(
    calibrated: tuple[Path, dict[str, Any]], inputs: Inputs, evaluation: Path, tmp_path: Path
) -> None:
    quantize_ncnn_int8.run(tmp_path, quantize_ncnn_int8.Params(), model=inputs["encoder"], table=calibrated[0])
    corpus = read_corpus(evaluation, ("clean",))
    frames = features(corpus.waveform(corpus.utterances[3]))
    feeds = {
        "in0": frames[:201],
        "in1": np.array([201], np.float32),
        "in2": np.zeros((LAYERS, DIM), np.float32),
        "in3": np.zeros((LAYERS, HIDDEN), np.float32),
    }
    want, got = (Net(*find_net(each)).run(feeds, ["out0"])["out0"] for each in (inputs["encoder"], tmp_path))
    noise = (want - got).astype(np.float64)
    assert 10 * np.log10((want.astype(np.float64) ** 2).sum() / (noise**2).sum()) > 15


def test_a_kl_threshold_lies_within_the_largest_magnitude(
    calibrated: tuple[Path, dict[str, Any]], inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="artifacts.speech"):
        metrics = calibrate_sherpa_ncnn.run(tmp_path, Params(min_seconds=0), **inputs)
    assert metrics == calibrated[1]
    last: Any = caplog.records[-1]
    assert (last.message, last.done, last.total) == ("calibrating", 8, 8)
    for part in ("encoder", "joint"):
        kl, absmax = (read_table(each / f"{part}.table") for each in (tmp_path, calibrated[0]))
        for name, scale in kl.activations.items():
            assert scale >= absmax.activations[name] * 0.999
        assert any(scale > 1.05 * absmax.activations[name] for name, scale in kl.activations.items())
        assert all(np.array_equal(scales, absmax.weights[key]) for key, scales in kl.weights.items())


def test_the_same_tables_come_out_anywhere(
    calibrated: tuple[Path, dict[str, Any]], inputs: Inputs, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    script = (
        "import sys; from pathlib import Path; from artifacts.steps import calibrate_sherpa_ncnn as step\n"
        "params = step.Params(min_seconds=0, activations='absmax')\n"
        "out, encoder, predictor, joint, corpus = map(Path, sys.argv[1:])\n"
        "step.run(out, params, encoder=encoder, predictor=predictor, joint=joint, corpus=corpus)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2", "TMPDIR": str(tmp_path)}
    folders = [str(each) for each in (tmp_path / "out", *inputs.values())]
    command = [sys.executable, "-W", "error", "-c", script, *folders]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert digests(tmp_path / "out") == digests(calibrated[0])


def test_speech_or_networks_that_cannot_be_calibrated_are_an_error(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"few: contains \d+\.\d s of speech, needs 60 s"):
        calibrate_sherpa_ncnn.run(tmp_path, Params(), **inputs)
    quantised = {}
    for part in ("encoder", "joint"):
        quantised[part] = tmp_path / part
        quantised[part].mkdir()
    table = tmp_path / "table"
    table.mkdir()
    calibrate_sherpa_ncnn.run(table, Params(min_seconds=0, activations="absmax"), **inputs)
    for part, folder in quantised.items():
        quantize_ncnn_int8.run(folder, quantize_ncnn_int8.Params(), model=inputs[part], table=table)
    with pytest.raises(StepError, match="encoder, joint: 0 convolutions and InnerProducts with float weights"):
        calibrate_sherpa_ncnn.run(tmp_path, Params(min_seconds=0), **(inputs | quantised))


def test_a_corpus_that_changes_during_calibration_is_an_error(
    inputs: Inputs, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass reads the clips again."""
    from artifacts.speech.corpus import Corpus

    read, calls = Corpus.waveform, []

    def changing(corpus: Corpus, utterance: Any) -> Any:
        calls.append(utterance.id)
        return read(corpus, utterance) * np.float32(0.5 if len(calls) == 6 else 1)

    monkeypatch.setattr(Corpus, "waveform", changing)
    with pytest.raises(StepError, match="few: the clips changed between the passes"):
        calibrate_sherpa_ncnn.run(tmp_path, Params(min_seconds=0), **inputs)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.ncnn.lstm_transducer import NcnnLstmTransducer
from artifacts.ncnn.param_file import find_net
from artifacts.ncnn.runtime import Net
from artifacts.ncnn.sherpa_ncnn import SherpaFiles, SherpaRecognizer
from artifacts.speech.corpus import read_corpus
from artifacts.speech.sherpa_streaming import SAMPLE_RATE_HZ, TAIL_SECONDS, transcribe
from artifacts.steps import calibrate_sherpa_ncnn, quantize_ncnn_int8, rewrite_ncnn_linears, tag_sherpa_ncnn
from artifacts.steps.quantize_ncnn_int8 import Params
from calibration_cases import copy_corpus
from lstm_networks import LstmNetworks, write_joint_table
from ncnn_conversions import Array, Parts


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"types_without_table": ["LSTM"], "float_weights": "fp32"}', True),
        ('{"types_without_table": [], "layers_to_exclude": ["gemm_0"]}', True),
        ('{"types_without_table": ["Convolution"]}', False),
        ('{"float_weights": "bf16"}', False),
        ('{"layers_to_exclude": "gemm_0"}', False),
        ('{"table": "a.table"}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


def quantize(model: Path, out: Path, table: Path | None = None, **params: Any) -> Any:
    out.mkdir(parents=True)
    return quantize_ncnn_int8.run(out, Params(**params), model=model, table=table)


def decibels(want: Array, got: Array) -> float:
    """Signal to noise: how far `got` is from `want`."""
    return float(10 * np.log10((want.astype(np.float64) ** 2).sum() / ((want - got).astype(np.float64) ** 2).sum()))


@pytest.fixture
def joint_table(parts: Parts, tmp_path: Path) -> Path:
    """A folder with one table."""
    (tmp_path / "tables").mkdir()
    write_joint_table(parts.folder("joint"), tmp_path / "tables" / "joint.table")
    return tmp_path / "tables"


def test_without_a_table_gemms_become_int8_and_the_rest_float16(
    parts: Parts, one_utterance: Array, tmp_path: Path
) -> None:
    head = parts.folder("head")
    metrics = quantize(head, tmp_path / "int8")
    assert metrics["int8_layers"] == metrics["int8_Gemm"] == 3
    assert metrics["layers_left_float"] == 5  # the convolutions
    assert metrics["bytes_after"] < 0.35 * metrics["bytes_before"]
    want, got = (Net(*find_net(each)).run({"in0": one_utterance})["out0"] for each in (head, tmp_path / "int8"))
    assert 25 < decibels(want, got) < 60
    quantize(head, tmp_path / "fp32", float_weights="fp32", types_without_table=("Gemm",))
    exact = Net(*find_net(tmp_path / "fp32")).run({"in0": one_utterance})["out0"]
    assert decibels(want, exact) > 25
    half, full = (find_net(tmp_path / each)[1].stat().st_size for each in ("int8", "fp32"))
    assert full > half


def test_by_a_table_inner_products_become_int8(
    parts: Parts, one_utterance: Array, joint_table: Path, tmp_path: Path
) -> None:
    joint = parts.folder("joint")
    metrics = quantize(joint, tmp_path / "int8", joint_table)
    assert metrics["int8_layers"] == metrics["int8_InnerProduct"] == 3
    feeds = {"in0": one_utterance[:96, 100] / 2, "in1": one_utterance[:96, 50] / 4}
    want, got = (Net(*find_net(each)).run(feeds)["out0"] for each in (joint, tmp_path / "int8"))
    assert 20 < decibels(want, got) < 60
    by_file = quantize(joint, tmp_path / "by_file", joint_table / "joint.table")
    assert by_file == metrics
    assert contents(tmp_path / "by_file") == contents(tmp_path / "int8")


def test_the_same_bytes_come_out_anywhere(lstm: LstmNetworks, tmp_path: Path) -> None:
    encoder = lstm.converted("encoder")
    first = quantize(encoder, tmp_path / "first")
    assert (first["int8_LSTM"], first["int8_Gemm"]) == (3, 7)
    assert quantize(encoder, tmp_path / "elsewhere" / "second") == first
    assert contents(tmp_path / "first") == contents(tmp_path / "elsewhere" / "second")
    assert (tmp_path / "first" / "inputs.json").read_bytes() == (encoder / "inputs.json").read_bytes()


@pytest.fixture(scope="module")
def calibrated(lstm: LstmNetworks, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The LSTM transducer with linear layers as InnerProducts, and its tables from two clips."""
    folder = tmp_path_factory.mktemp("calibrated")
    for name in ("encoder", "tables"):
        (folder / name).mkdir()
    rewrite_ncnn_linears.run(folder / "encoder", rewrite_ncnn_linears.Params(), model=lstm.converted("encoder"))
    parts = {part: lstm.converted(part) for part in ("predictor", "joint")} | {"encoder": folder / "encoder"}
    params = calibrate_sherpa_ncnn.Params(min_seconds=0, activations="absmax")
    calibrate_sherpa_ncnn.run(folder / "tables", params, **parts, corpus=copy_corpus(calibration, folder / "few", 2))
    return parts | {"tables": folder / "tables"}


@pytest.mark.parametrize("by_table", [False, True])
def test_sherpa_ncnn_decodes_the_tokens_of_our_own_loop_in_int8(
    calibrated: dict[str, Path], lstm: LstmNetworks, evaluation: Path, by_table: bool, tmp_path: Path
) -> None:
    tables = calibrated["tables"]
    encoder = calibrated["encoder"] if by_table else lstm.converted("encoder")
    quantize(encoder, tmp_path / "encoder", tables if by_table else None)
    quantize(calibrated["predictor"], tmp_path / "predictor")
    quantize(calibrated["joint"], tmp_path / "joint", tables)
    (tmp_path / "tagged").mkdir()
    tag_sherpa_ncnn.run(tmp_path / "tagged", tag_sherpa_ncnn.Params(), encoder=tmp_path / "encoder")
    folders = [tmp_path / part for part in ("tagged", "predictor", "joint")]
    corpus = read_corpus(evaluation, ("clean",))
    waveform = corpus.waveform(corpus.utterances[0])
    ours = transcribe(NcnnLstmTransducer(*folders, as_sherpa=True), waveform)
    files = [path for folder in folders for path in find_net(folder)]
    with SherpaRecognizer(SherpaFiles(lstm.tokens() / "tokens.txt", *files)) as recognizer:
        assert recognizer.tokens(np.pad(waveform, (0, round(TAIL_SECONDS * SAMPLE_RATE_HZ)))) == ours
    assert len(set(ours)) > 1  # random weights say little


def test_what_is_excluded_stays_float_and_must_be_there(parts: Parts, tmp_path: Path) -> None:
    metrics = quantize(parts.folder("predictor"), tmp_path / "some", layers_to_exclude=("embed_0",))
    assert metrics["int8_layers"] == metrics["int8_LSTM"] == 2
    metrics = quantize(parts.folder("predictor"), tmp_path / "types", types_without_table=("Embed",))
    assert metrics["int8_layers"] == metrics["int8_Embed"] == 1
    with pytest.raises(StepError, match=r"predictor\.ncnn\.param: layers_to_exclude: no layer is called 'embed_7'"):
        quantize(parts.folder("predictor"), tmp_path / "none", layers_to_exclude=("embed_7",))


def test_a_model_of_which_nothing_becomes_int8_is_refused(parts: Parts, joint_table: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: 0 layers quantised: .*, and no table is given") as caught:
        quantize(parts.folder("joint"), tmp_path / "a")
    assert "calibrate_ncnn" in caught.value.fix
    excluded = ("linear_1", "linear_2", "linear_3")
    with pytest.raises(StepError, match="0 layers quantised"):
        quantize(parts.folder("joint"), tmp_path / "b", joint_table, layers_to_exclude=excluded)
    quantize(parts.folder("predictor"), tmp_path / "c")
    with pytest.raises(StepError, match=r"layer '\w+' is int8 already"):
        quantize(tmp_path / "c", tmp_path / "d")


def test_a_table_of_another_model_is_refused(parts: Parts, joint_table: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"tables: contains joint\.table, not 'head\.table'"):
        quantize(parts.folder("head"), tmp_path / "a", joint_table)
    with pytest.raises(StepError, match=r"joint\.table: no layer is called 'linear_\d'"):
        quantize(parts.folder("predictor"), tmp_path / "b", joint_table / "joint.table")
    text = (joint_table / "joint.table").read_text()
    (tmp_path / "short.table").write_text(text.replace("linear_1_param_0 ", "linear_1_param_0 1.0 ", 1))
    with pytest.raises(StepError, match=r"layer 'linear_1' .*: the table has 97 scales, it has 96 channels"):
        quantize(parts.folder("joint"), tmp_path / "c", tmp_path / "short.table")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}

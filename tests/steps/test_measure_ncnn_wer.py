from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.steps import measure_ncnn_wer, measure_wer
from artifacts.steps.measure_ncnn_wer import Params
from calibration_cases import copy_corpus
from lstm_networks import LstmNetworks
from word_losses import read_rows


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"slices": ["clean"], "threads": 2, "compare_with_sherpa": True}, True),
        ({"ignore_case_and_punctuation": True}, True),
        ({"slices": []}, False),
        ({"threads": 0}, False),
        ({"compare_with_sherpa": 1}, False),
        ({"beam": 4}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params.model_validate_json(json.dumps(params))
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(json.dumps(params))


@pytest.fixture(scope="module")
def clips(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four clean utterances."""
    folder = tmp_path_factory.mktemp("speech") / "clips"
    copy_corpus(evaluation, folder, 4)
    return folder


@pytest.fixture(scope="module")
def inputs(lstm: LstmNetworks, clips: Path) -> dict[str, Path]:
    return {
        "encoder": lstm.tagged(),
        "predictor": lstm.converted("predictor"),
        "joint": lstm.converted("joint"),
        "tokens": lstm.tokens(),
        "corpus": clips,
    }


def hypotheses(folder: Path) -> list[str]:
    lines = (folder / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["hypothesis"] for line in lines]


def test_a_stream_is_heard_as_sherpa_hears_it_token_for_token(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = measure_ncnn_wer.run(tmp_path, Params(compare_with_sherpa=True), **inputs)
    assert (metrics["sherpa_equal_utterances"], metrics["utterances"]) == (4, 4)
    assert metrics["empty_hypotheses"] == 0
    assert metrics["wer_percent"] > 50  # the weights are random ones
    assert len(set("".join(hypotheses(tmp_path)))) > 3


def test_another_loop_than_sherpas_is_noticed(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artifacts.speech.streaming_rnnt.SHIFT_FRAMES", 5)
    metrics = measure_ncnn_wer.run(tmp_path, Params(compare_with_sherpa=True), **inputs)
    assert metrics["sherpa_equal_utterances"] == 0


def test_the_same_measurement_leaves_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        measure_ncnn_wer.run(tmp_path / name, Params(), **inputs)
    for name in ("metrics.json", "hypotheses.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_tdt_model_needs_both_of_its_other_inputs(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StepError, match="of the inputs preprocessor and model_meta one is missing"):
        measure_ncnn_wer.run(tmp_path, Params(), **inputs, preprocessor=tmp_path)


def test_sherpa_hears_no_tdt_model(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StepError, match="compare_with_sherpa: sherpa-ncnn has no type for a FastConformer-TDT"):
        measure_ncnn_wer.run(
            tmp_path, Params(compare_with_sherpa=True), **inputs, preprocessor=tmp_path, model_meta=tmp_path
        )


def test_a_tdt_model_gives_the_text_of_its_onnx_form(
    tdt: dict[str, Path],
    clips: Path,
    tmp_path: Path,
    encoder_fp32: Path,
    decoder_joint_fp32: Path,
    preprocessor: Path,
    tokens: Path,
    model_meta: Path,
) -> None:
    shared = {"preprocessor": preprocessor, "tokens": tokens, "model_meta": model_meta, "corpus": clips}
    for name in ("onnx", "ncnn"):
        (tmp_path / name).mkdir()
    onnx = measure_wer.run(
        tmp_path / "onnx", measure_wer.Params(), encoder=encoder_fp32, decoder_joint=decoder_joint_fp32, **shared
    )
    ncnn = measure_ncnn_wer.run(tmp_path / "ncnn", Params(), **tdt, **shared)
    assert ncnn.keys() == onnx.keys()
    assert ncnn["wer_percent"] < 20
    ours, theirs = (read_rows(tmp_path / name) for name in ("ncnn", "onnx"))
    same = sum(row["hypothesis"] == other["hypothesis"] for row, other in zip(ours, theirs, strict=True))
    assert same >= len(theirs) - 1 > 0, "the last bits may decide one text"

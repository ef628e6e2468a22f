from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.steps import measure_sherpa_ncnn_wer
from artifacts.steps.measure_sherpa_ncnn_wer import Params
from calibration_cases import copy_corpus
from lstm_networks import LstmNetworks


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


def test_a_stream_is_transcribed_as_by_sherpa_ncnn_token_for_token(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = measure_sherpa_ncnn_wer.run(tmp_path, Params(compare_with_sherpa=True), **inputs)
    assert (metrics["sherpa_equal_utterances"], metrics["utterances"]) == (4, 4)
    assert metrics["empty_hypotheses"] == 0
    assert metrics["wer_percent"] > 50  # the weights are random ones
    assert len(set("".join(hypotheses(tmp_path)))) > 3


def test_another_loop_than_sherpas_is_noticed(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artifacts.speech.sherpa_streaming.SHIFT_FRAMES", 5)
    metrics = measure_sherpa_ncnn_wer.run(tmp_path, Params(compare_with_sherpa=True), **inputs)
    assert metrics["sherpa_equal_utterances"] == 0


def test_the_same_measurement_leaves_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        measure_sherpa_ncnn_wer.run(tmp_path / name, Params(), **inputs)
    for name in ("metrics.json", "hypotheses.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

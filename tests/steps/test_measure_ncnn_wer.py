from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.steps import measure_ncnn_wer, measure_wer
from artifacts.steps.measure_ncnn_wer import Params
from calibration_cases import copy_corpus
from word_losses import read_rows


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"slices": ["clean"], "threads": 2}, True),
        ({"ignore_case_and_punctuation": True}, True),
        ({"slices": []}, False),
        ({"threads": 0}, False),
        ({"compare_with_sherpa": True}, False),
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

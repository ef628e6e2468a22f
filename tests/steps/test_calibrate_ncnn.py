from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.speech.corpus import read_corpus
from artifacts.steps import calibrate_ncnn, quantize_ncnn_int8
from artifacts.steps.calibrate_ncnn import Params
from calibration_cases import copy_corpus


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


def test_whole_utterances_give_the_tables_of_encoder_and_joint(
    tdt: dict[str, Path], preprocessor: Path, model_meta: Path, few: Path, tmp_path: Path
) -> None:
    more = {"preprocessor": preprocessor, "model_meta": model_meta, "corpus": few}
    metrics = calibrate_ncnn.run(tmp_path, Params(min_seconds=0), **tdt, **more)
    assert (metrics["encoder_layers"], metrics["joint_layers"]) == (5, 3)
    words = sum(len(each.text.split()) for each in read_corpus(few).utterances)
    assert metrics["tokens"] > words  # the networks transcribe the speech
    quantised = tmp_path / "joint"
    quantised.mkdir()
    made = quantize_ncnn_int8.run(quantised, quantize_ncnn_int8.Params(), model=tdt["joint"], table=tmp_path)
    assert made["int8_InnerProduct"] == 3
    with pytest.raises(StepError, match=r"few: contains \d+\.\d s of speech, needs 60 s"):
        calibrate_ncnn.run(tmp_path, Params(), **tdt, **more)

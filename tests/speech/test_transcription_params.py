"""Steps that transcribe a corpus take the same params, with the same bounds."""

from __future__ import annotations

from importlib import import_module

import pytest
from pydantic import ValidationError

from artifacts.speech.transcription_params import TranscriptionParams


@pytest.mark.parametrize(
    "step", ["measure_wer", "measure_ncnn_wer", "measure_sherpa_ncnn_wer", "measure_streaming_wer"]
)
def test_a_step_that_counts_words_takes_them_all(step: str) -> None:
    fields = import_module(f"artifacts.steps.{step}").Params.model_fields
    assert TranscriptionParams.model_fields.keys() <= fields.keys()


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"slices": ["clean"]}, {"slices": []}),
        ({"threads": 64}, {"threads": 65}),
        ({"ignore_case_and_punctuation": True}, {"ignore_case_and_punctuation": "yes"}),
    ],
)
def test_values_out_of_bounds_are_refused(good: dict[str, object], bad: dict[str, object]) -> None:
    TranscriptionParams.model_validate(good, strict=False)
    with pytest.raises(ValidationError):
        TranscriptionParams.model_validate(bad)

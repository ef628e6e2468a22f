from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jiwer
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.nemo.streaming import StreamingOverrides, set_up_streaming
from artifacts.speech.corpus import read_corpus
from artifacts.steps import measure_streaming_wer
from artifacts.steps.measure_streaming_wer import Params
from streaming_targets import CHECKPOINT, measurement_inputs, restored_streaming_model, streaming, transcribe_with_nemo
from word_losses import TOTAL, count_rows, exceeding, losses, read_rows

pytestmark = pytest.mark.slow

SLICES = ("clean", "soft_endings")


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"slices": ["clean"], "threads": 2}, True),
        ({"ignore_case_and_punctuation": True}, True),
        ({"slices": []}, False),
        ({"slices": "clean"}, False),
        ({"threads": 0}, False),
        ({"ignore_case_and_punctuation": "yes"}, False),
        ({"buffered": {}}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params.model_validate_json(json.dumps(params))
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(json.dumps(params))


@pytest.fixture(scope="module")
def inputs(evaluation: Path) -> dict[str, Path]:
    return {**measurement_inputs("streaming_encoder_fp32"), "corpus": evaluation}


@pytest.fixture(scope="module")
def measured(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The step's folder and metrics on two slices of the evaluation speech."""
    out = tmp_path_factory.mktemp("measured")
    return out, dict(measure_streaming_wer.run(out, Params(slices=SLICES), **inputs))


def test_the_rates_are_those_of_jiwer_over_the_hypotheses(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = measured
    lines = read_rows(folder)
    for name in SLICES:
        chosen = [line for line in lines if line["slice"] == name]
        assert len(chosen) == 66
        wer = 100 * jiwer.wer([line["text"] for line in chosen], [line["hypothesis"] for line in chosen])
        assert metrics[f"wer_percent_{name}"] == pytest.approx(wer, abs=1e-4)
    assert metrics["latency_seconds"] == 1.12
    assert 0 < metrics["real_time_factor"] < 2


def test_the_checkpoint_transcribes_speech_in_chunks(measured: tuple[Path, dict[str, Any]]) -> None:
    assert 0 < measured[1]["wer_percent_clean"] <= 10
    assert measured[1]["empty_hypotheses"] == 0


def test_the_text_is_that_of_nemos_own_streaming(
    measured: tuple[Path, dict[str, Any]], evaluation: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = restored_streaming_model(tmp_path_factory.mktemp("unpacked"))
    set_up_streaming(model, StreamingOverrides(), CHECKPOINT.name)
    corpus = read_corpus(evaluation, SLICES)
    theirs = transcribe_with_nemo(model, [corpus.waveform(utterance) for utterance in corpus.utterances])
    lines, nemos = read_rows(measured[0]), count_rows(corpus.utterances, theirs)
    assert sum(line["hypothesis"] == text for line, text in zip(lines, theirs, strict=True)) >= 0.97 * len(lines)
    assert exceeding(losses(lines, nemos), 0.1) == []
    assert exceeding(losses(nemos, lines), 0.1) == []


def test_the_same_inputs_give_the_same_bytes(
    measured: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    metrics = measure_streaming_wer.run(tmp_path, Params(slices=SLICES), **inputs)
    assert {**metrics, "real_time_factor": 0} == {**measured[1], "real_time_factor": 0}
    for name in ("metrics.json", "hypotheses.jsonl"):
        assert (tmp_path / name).read_bytes() == (measured[0] / name).read_bytes()


def test_artifacts_of_two_checkpoints_are_refused(
    inputs: dict[str, Path], tokens: Path, model_meta: Path, encoder_fp32: Path, tmp_path: Path
) -> None:
    mixed = {**inputs, "tokens": tokens, "model_meta": model_meta}
    with pytest.raises(StepError, match=r"the joint scores 129 classes; .*names 128 tokens, a blank and 5 durations"):
        measure_streaming_wer.run(tmp_path, Params(slices=("clean",)), **mixed)
    with pytest.raises(StepError, match="has the inputs audio_signal, length; needs"):
        measure_streaming_wer.run(tmp_path, Params(slices=("clean",)), **{**inputs, "encoder": encoder_fp32})
    assert list(tmp_path.iterdir()) == []


def test_int8_errs_as_fp32_does_and_less_latency_costs_words(
    measured: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    found = {}
    for form in ("int8", "560ms"):
        (tmp_path / form).mkdir()
        form_inputs = {**inputs, "encoder": streaming(f"streaming_encoder_{form}")}
        found[form] = measure_streaming_wer.run(tmp_path / form, Params(slices=SLICES), **form_inputs)
    assert found["560ms"]["latency_seconds"] == 0.56
    fp32, int8, sooner = (read_rows(folder) for folder in (measured[0], tmp_path / "int8", tmp_path / "560ms"))
    assert exceeding(losses(int8, fp32), 1) == []
    assert losses(sooner, fp32)[TOTAL].exceeds(1)

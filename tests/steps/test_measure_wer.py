from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jiwer
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.steps import measure_wer
from artifacts.steps.measure_wer import Buffered, Params

pytestmark = pytest.mark.slow

SHORT = Params(slices=("clean", "soft_endings"))
AS_STREAMS = Params(slices=("clean",), buffered=Buffered())


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"slices": ["clean"], "threads": 2},
        {"ignore_case_and_punctuation": True},
        {"buffered": None},
        {"buffered": {}},
        {"buffered": {"chunk_seconds": 1, "left_seconds": 0, "right_seconds": 0}},
    ],
)
def test_good_params(params: dict[str, Any]) -> None:
    Params.model_validate_json(json.dumps(params))


@pytest.mark.parametrize(
    "params",
    [
        {"slices": []},
        {"slices": "clean"},
        {"threads": 0},
        {"threads": 1.0},
        {"ignore_case_and_punctuation": "yes"},
        {"beam": 4},
        {"buffered": True},
        {"buffered": {"chunk_seconds": 0}},
        {"buffered": {"chunk_seconds": 61}},
        {"buffered": {"left_seconds": -1}},
        {"buffered": {"left_seconds": 121}},
        {"buffered": {"right_seconds": 61}},
        {"buffered": {"right_seconds": "2"}},
        {"buffered": {"chunk_frames": 25}},
    ],
)
def test_bad_params(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate_json(json.dumps(params))


@pytest.fixture(scope="module")
def inputs(
    encoder_fp32: Path, decoder_joint_fp32: Path, preprocessor: Path, tokens: Path, model_meta: Path, evaluation: Path
) -> dict[str, Path]:
    return {
        "encoder": encoder_fp32,
        "decoder_joint": decoder_joint_fp32,
        "preprocessor": preprocessor,
        "tokens": tokens,
        "model_meta": model_meta,
        "corpus": evaluation,
    }


@pytest.fixture(scope="module")
def measured(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The step's folder and metrics on two slices of the evaluation speech."""
    out = tmp_path_factory.mktemp("measured")
    return out, dict(measure_wer.run(out, SHORT, **inputs))


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_utterance_of_the_slices_is_kept_in_the_order_of_the_corpus(
    measured: tuple[Path, dict[str, Any]], evaluation: Path
) -> None:
    rows = [json.loads(line) for line in (evaluation / "utterances.jsonl").read_text(encoding="utf-8").splitlines()]
    wanted = [(row["id"], row["text"]) for row in rows if row["slice"] in ("clean", "soft_endings")]
    assert [(line["id"], line["text"]) for line in read_lines(measured[0])] == wanted


def test_the_rates_are_those_of_jiwer_over_the_hypotheses(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = measured
    lines = read_lines(folder)
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for name, part in [(None, record["total"]), *record["slices"].items()]:
        chosen = [line for line in lines if name in (None, line["slice"])]
        found = jiwer.process_words([line["text"] for line in chosen], [line["hypothesis"] for line in chosen])
        assert part["wer_percent"] == pytest.approx(100 * found.wer, abs=1e-4)
        assert part["utterances"] == len(chosen)
        assert part["words"] == found.hits + found.substitutions + found.deletions
        for kind in ("substitutions", "deletions", "insertions"):
            assert part[kind] == getattr(found, kind) == sum(line[kind] for line in chosen)
        assert metrics["wer_percent" if name is None else f"wer_percent_{name}"] == part["wer_percent"]


def test_the_checkpoint_understands_clean_speech(measured: tuple[Path, dict[str, Any]]) -> None:
    assert measured[1]["wer_percent"] > 0
    assert measured[1]["wer_percent_clean"] <= 3
    assert measured[1]["empty_hypotheses"] == 0


def test_the_same_inputs_give_the_same_bytes(
    measured: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert measure_wer.run(tmp_path / "out", SHORT, **inputs) == measured[1]
    for name in ("metrics.json", "hypotheses.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (measured[0] / name).read_bytes()


def test_what_is_known_of_whole_recordings_is_their_error_rates(measured: tuple[Path, dict[str, Any]]) -> None:
    of_slices = [f"{rate}_percent_{name}" for name in ("clean", "soft_endings") for rate in ("wer", "deletions")]
    assert list(measured[1]) == ["wer_percent", "words", "empty_hypotheses", *of_slices]


@pytest.fixture(scope="module")
def streamed(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The step's folder and metrics with the clean slice in chunks of 2 s, with 10 s before and 2 s after them."""
    out = tmp_path_factory.mktemp("streamed")
    return out, dict(measure_wer.run(out, AS_STREAMS, **inputs))


def test_an_offline_encoder_streams_clean_speech_four_seconds_late(streamed: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = streamed
    assert list(metrics)[:4] == ["wer_percent", "latency_seconds", "encoded_times", "real_time_factor"]
    assert metrics["latency_seconds"] == 4.0
    assert metrics["encoded_times"] == 7.0
    assert metrics["real_time_factor"] > 0
    assert metrics["wer_percent"] == metrics["wer_percent_clean"] <= 3


def test_a_stream_gives_the_same_bytes_however_fast_it_was(
    streamed: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    measure_wer.run(tmp_path, AS_STREAMS, **inputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hypotheses.jsonl", "metrics.json"]
    for name in ("metrics.json", "hypotheses.jsonl"):
        assert (tmp_path / name).read_bytes() == (streamed[0] / name).read_bytes()
    assert "real_time" not in (tmp_path / "metrics.json").read_text(encoding="utf-8")


def test_a_chunk_longer_than_the_recordings_gives_the_text_of_whole_recordings(
    measured: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    measure_wer.run(tmp_path, Params(slices=("clean",), buffered=Buffered(chunk_seconds=60)), **inputs)
    assert read_lines(tmp_path) == [line for line in read_lines(measured[0]) if line["slice"] == "clean"]


def test_less_latency_costs_words(
    streamed: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    hurried = Buffered(chunk_seconds=0.96, left_seconds=4, right_seconds=0.96)
    metrics = measure_wer.run(tmp_path, Params(slices=("clean",), buffered=hurried), **inputs)
    assert metrics["latency_seconds"] == 1.92
    assert streamed[1]["wer_percent"] + 2 < metrics["wer_percent"] < 20


def test_a_chunk_that_is_no_whole_number_of_frames_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name, seconds in (("chunk_seconds", 0.1), ("left_seconds", 1.0), ("right_seconds", 0.5)):
        with pytest.raises(StepError, match=rf"buffered\.{name}: {seconds:g} s is not a whole number of enc"):
            measure_wer.run(tmp_path, Params(buffered=Buffered(**{name: seconds})), **inputs)
    assert not list(tmp_path.iterdir())


def test_separate_graphs_give_the_same_text(
    measured: tuple[Path, dict[str, Any]],
    inputs: dict[str, Path],
    predictor_fp32: Path,
    joint_fp32: Path,
    tmp_path: Path,
) -> None:
    separate = inputs | {"predictor": predictor_fp32, "joint": joint_fp32}
    del separate["decoder_joint"]
    measure_wer.run(tmp_path, SHORT, **separate)
    assert (tmp_path / "hypotheses.jsonl").read_bytes() == (measured[0] / "hypotheses.jsonl").read_bytes()


def test_progress_ends_with_all_utterances(
    inputs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="artifacts"):
        measure_wer.run(tmp_path, Params(slices=("clean",)), **inputs)
    last = caplog.records[-1]
    utterances = len(read_lines(tmp_path))
    assert (last.message, last.done, last.total) == ("transcribing", utterances, utterances)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ((), "the inputs decoder_joint, predictor and joint are all missing"),
        (("predictor",), "the inputs predictor do not make one decoder"),
        (("decoder_joint", "joint"), "the inputs decoder_joint and joint do not make one decoder"),
    ],
)
def test_half_a_decoder_or_two_are_refused(
    inputs: dict[str, Path], tmp_path: Path, given: tuple[str, ...], fact: str
) -> None:
    chosen = {name: folder for name, folder in inputs.items() if name != "decoder_joint"}
    chosen |= dict.fromkeys(given, inputs["decoder_joint"])
    with pytest.raises(StepError) as raised:
        measure_wer.run(tmp_path, SHORT, **chosen)
    assert raised.value.fact == fact
    assert not list(tmp_path.iterdir())


def test_tokens_of_another_checkpoint_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/vocab.txt").write_text("a 0\n<blk> 1\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError, match=r"vocab\.txt: contains 2 pieces, model_meta\.json says"):
        measure_wer.run(tmp_path / "out", SHORT, **inputs | {"tokens": tmp_path / "tokens"})


def test_an_unknown_slice_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StepError, match="contains no slice 'music'"):
        measure_wer.run(tmp_path, Params(slices=("music",)), **inputs)

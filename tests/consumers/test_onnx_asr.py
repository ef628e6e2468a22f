"""onnx-asr, as its users install it, reads the layout and gives the texts of NeMo."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.speech.corpus import Corpus
from word_losses import TOTAL, Rows, count_rows, exceeding, losses, wer_percent

THREADS = 1
Transcribe = Callable[[str | None], dict[str, str]]


@pytest.fixture(scope="module")
def copied(dist_onnx_asr: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout, carried to another place."""
    return Path(shutil.copytree(dist_onnx_asr, tmp_path_factory.mktemp("elsewhere") / "model"))


@pytest.fixture(scope="module")
def transcribe(copied: Path, speech: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Transcribe:
    """What onnx-asr makes of each utterance with a quantization suffix: id → text. Each is computed once."""
    import onnx_asr
    import onnxruntime

    known: dict[str | None, dict[str, str]] = {}

    def texts(quantization: str | None) -> dict[str, str]:
        if quantization not in known:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = THREADS
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path_factory.mktemp("cwd"))
                model = onnx_asr.load_model(
                    "nemo-conformer-tdt",
                    copied,
                    quantization=quantization,
                    sess_options=options,
                    providers=["CPUExecutionProvider"],
                )
                known[quantization] = {
                    utterance.id: model.recognize(speech.waveform(utterance)) for utterance in speech.utterances
                }
        return known[quantization]

    return texts


def rows(speech: Corpus, texts: dict[str, str]) -> Rows:
    return count_rows(speech.utterances, [texts[utterance.id] for utterance in speech.utterances])


def agreement(first: dict[str, str], second: dict[str, str]) -> float:
    assert first.keys() == second.keys()
    return sum(first[key] == second[key] for key in first) / len(first)


def test_the_fp32_text_is_nemos_on_99_of_100_utterances(
    transcribe: Transcribe, nemo_transcripts: dict[str, str]
) -> None:
    assert agreement(transcribe(None), nemo_transcripts) >= 0.99


def test_fp16_errs_as_fp32_does_on_every_slice(transcribe: Transcribe, speech: Corpus) -> None:
    fp32, fp16 = (rows(speech, transcribe(name)) for name in (None, "fp16"))
    assert exceeding(losses(fp16, fp32), 0.1) == []
    assert exceeding(losses(fp32, fp16), 0.1) == []


def test_int8_gives_words_for_every_utterance_and_its_loss_is_shown(
    transcribe: Transcribe, speech: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    fp32, int8 = (rows(speech, transcribe(name)) for name in (None, "int8"))
    lost = losses(int8, fp32)
    with capsys.disabled():
        print("\n\n  onnx-asr, WER in %    fp32    int8    loss  scatter")
        for name, one in lost.items():
            before, after = wer_percent(fp32, name), wer_percent(int8, name)
            print(f"  {name:<18}{before:8.2f}{after:8.2f}{one.points:+8.2f}{one.scatter:9.2f}")
    assert all(transcribe("int8").values())
    assert not lost[TOTAL].exceeds(0.3)


@pytest.mark.parametrize(
    ("target", "quantization", "least"),
    [
        ("wer_fp32", None, 0.99),
        # int8 rounds in steps: where our features and onnx-asr's own differ in the last digits, a text may differ too,
        # and most texts of minutes do in a word or two.
        ("wer_int8", "int8", 0.9),
    ],
)
def test_our_own_decoding_gives_the_text_that_onnx_asr_gives(
    transcribe: Transcribe, built: Callable[[str], Path], target: str, quantization: str | None, least: float
) -> None:
    lines = (built(target) / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
    ours = {line["id"]: line["hypothesis"] for line in map(json.loads, lines)}
    theirs = transcribe(quantization)
    assert agreement(theirs, {id_: ours[id_] for id_ in theirs}) >= least

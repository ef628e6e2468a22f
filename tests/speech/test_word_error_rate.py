from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from artifacts.errors import StepError
from artifacts.speech.corpus import Corpus, read_corpus
from artifacts.speech.word_error_rate import WordErrors, count_errors, sum_errors, transcribe_corpus, write_report

if TYPE_CHECKING:
    import numpy as np


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "hypothesis_words", "substitutions", "deletions", "insertions", "empty"),
    [
        ("the cat sat", "the cat sat", 3, 3, 0, 0, 0, 0),
        ("the cat sat", "the bat sat", 3, 3, 1, 0, 0, 0),
        ("the cat sat", "the sat", 3, 2, 0, 1, 0, 0),
        ("the cat sat", "so the cat sat down", 3, 5, 0, 0, 2, 0),
        ("the cat sat", "", 3, 0, 0, 3, 0, 1),
        ("the  cat", " the cat ", 2, 2, 0, 0, 0, 0),
    ],
)
def test_one_utterance_is_counted(
    reference: str,
    hypothesis: str,
    words: int,
    hypothesis_words: int,
    substitutions: int,
    deletions: int,
    insertions: int,
    empty: int,
) -> None:
    expected = WordErrors(1, words, hypothesis_words, substitutions, deletions, insertions, empty)
    assert count_errors(reference, hypothesis, ignore_case_and_punctuation=False) == expected


def test_case_and_punctuation_count_unless_they_are_to_be_ignored() -> None:
    reference, hypothesis = "it's a cat he said", "It's a cat, he said."
    assert count_errors(reference, hypothesis, ignore_case_and_punctuation=False).substitutions == 3
    assert count_errors(reference, hypothesis, ignore_case_and_punctuation=True).wer_percent == 0


def test_letters_of_every_language_are_words() -> None:
    assert count_errors("größe été мир", "Größe, été! Мир_", ignore_case_and_punctuation=True).wer_percent == 0


def test_a_rate_weighs_every_word_alike() -> None:
    counts = [
        count_errors("one", "two", ignore_case_and_punctuation=False),
        count_errors("a b c d e f g", "a b c d e f g", ignore_case_and_punctuation=False),
    ]
    assert [each.wer_percent for each in counts] == [100.0, 0.0]
    assert sum_errors(counts).wer_percent == 12.5
    assert sum_errors(counts).utterances == 2


def test_the_rate_of_deletions_is_part_of_the_error_rate() -> None:
    errors = count_errors("a b c d", "a x", ignore_case_and_punctuation=False)
    assert (errors.wer_percent, errors.deletions_percent) == (75.0, 50.0)


@pytest.fixture(scope="module")
def corpus(evaluation: Path) -> Corpus:
    """Two utterances each of two slices."""
    speech = read_corpus(evaluation, ("clean", "noisy_1db"))
    return Corpus(speech.folder, speech.evenly_spread(2))


def transcripts_of(corpus: Corpus) -> tuple[list[Any], list[int]]:
    """Transcribe the first utterance of each slice without errors, the second as one wrong word or as nothing."""
    texts = iter([corpus.utterances[0].text, "wrong", corpus.utterances[2].text, ""])
    lengths: list[int] = []

    def transcribe(waveform: np.ndarray) -> str:
        lengths.append(len(waveform))
        return next(texts)

    return transcribe_corpus(corpus, transcribe, ignore_case_and_punctuation=False), lengths


def test_each_utterance_is_transcribed_once_in_the_order_of_the_corpus(corpus: Corpus) -> None:
    transcripts, lengths = transcripts_of(corpus)
    assert [each.utterance for each in transcripts] == list(corpus.utterances)
    assert lengths == [len(corpus.waveform(utterance)) for utterance in corpus.utterances]


@pytest.mark.parametrize(
    ("text", "ignored", "told"),
    [("...", True, "has no word once punctuation is ignored"), ("\x1c", False, "has no word")],
)
def test_a_text_without_a_word_is_an_error_before_the_first_utterance(
    corpus: Corpus, text: str, ignored: bool, told: str
) -> None:
    *others, last = corpus.utterances
    silent = dataclasses.replace(corpus, utterances=(*others, last.model_copy(update={"text": text})))
    with pytest.raises(StepError) as raised:
        transcribe_corpus(silent, lambda _: pytest.fail("was transcribed"), ignore_case_and_punctuation=ignored)
    place = f"{corpus.folder.name}/utterances.jsonl: utterance '{last.id}': text"
    assert raised.value.fact == f"{place}: {text!r} {told}"


def test_punctuation_alone_is_a_word_where_it_counts(corpus: Corpus) -> None:
    first = corpus.utterances[0].model_copy(update={"text": "..."})
    (transcript,) = transcribe_corpus(
        dataclasses.replace(corpus, utterances=(first,)), lambda _: "", ignore_case_and_punctuation=False
    )
    assert transcript.errors.words == 1


def test_rates_are_those_of_all_words_together(corpus: Corpus, tmp_path: Path) -> None:
    flat = write_report(tmp_path, transcripts_of(corpus)[0])
    words = [len(utterance.text.split()) for utterance in corpus.utterances]
    assert flat["words"] == sum(words)
    assert flat["empty_hypotheses"] == 1
    assert flat["wer_percent"] == round(100 * (words[1] + words[3]) / sum(words), 4)
    assert flat["wer_percent_clean"] == round(100 * words[1] / (words[0] + words[1]), 4)
    assert flat["deletions_percent_clean"] == round(100 * (words[1] - 1) / (words[0] + words[1]), 4)
    assert flat["wer_percent_noisy_1db"] == flat["deletions_percent_noisy_1db"]
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["total"]["wer_percent"] == flat["wer_percent"]
    assert list(record["slices"]) == ["clean", "noisy_1db"]
    assert record["slices"]["clean"]["utterances"] == 2


def test_each_hypothesis_is_kept_beside_its_text(corpus: Corpus, tmp_path: Path) -> None:
    write_report(tmp_path, transcripts_of(corpus)[0])
    lines = [json.loads(line) for line in (tmp_path / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [utterance.id for utterance in corpus.utterances]
    assert [line["hypothesis"] for line in lines][1::2] == ["wrong", ""]
    assert lines[1]["substitutions"] == 1
    assert lines[3]["deletions"] == len(corpus.utterances[3].text.split())
    assert list(lines[0]) == ["id", "slice", "text", "hypothesis", "substitutions", "deletions", "insertions"]

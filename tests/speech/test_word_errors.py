from __future__ import annotations

import pytest

from artifacts.speech.word_errors import WordErrors, count, total


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "heard", "substitutions", "deletions", "insertions", "empty"),
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
    heard: int,
    substitutions: int,
    deletions: int,
    insertions: int,
    empty: int,
) -> None:
    expected = WordErrors(1, words, heard, substitutions, deletions, insertions, empty)
    assert count(reference, hypothesis, ignore_case_and_punctuation=False) == expected


def test_case_and_punctuation_count_unless_they_are_to_be_ignored() -> None:
    reference, hypothesis = "it's a cat he said", "It's a cat, he said."
    assert count(reference, hypothesis, ignore_case_and_punctuation=False).substitutions == 3
    assert count(reference, hypothesis, ignore_case_and_punctuation=True).wer_percent == 0


def test_letters_of_every_language_are_words() -> None:
    assert count("größe été мир", "Größe, été! Мир_", ignore_case_and_punctuation=True).wer_percent == 0


def test_a_rate_weighs_every_word_alike() -> None:
    counts = [
        count("one", "two", ignore_case_and_punctuation=False),
        count("a b c d e f g", "a b c d e f g", ignore_case_and_punctuation=False),
    ]
    assert [each.wer_percent for each in counts] == [100.0, 0.0]
    assert total(counts).wer_percent == 12.5
    assert total(counts).utterances == 2


def test_the_rate_of_deletions_is_part_of_the_error_rate() -> None:
    errors = count("a b c d", "a x", ignore_case_and_punctuation=False)
    assert (errors.wer_percent, errors.deletions_percent) == (75.0, 50.0)

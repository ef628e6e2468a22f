"""Word errors: how many words of a reference a hypothesis has substituted, deleted or inserted.

Counted by jiwer (the least number of edits between the word sequences). Counts add up over utterances, rates do not: a
rate over several utterances is the sum of their errors over the sum of their reference words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import jiwer

_PUNCTUATION = re.compile(r"[^\w\s']|_")


@dataclass(frozen=True)
class WordErrors:
    """Counts over one utterance or several."""

    utterances: int
    words: int
    """Words of the references."""
    hypothesis_words: int
    substitutions: int
    deletions: int
    insertions: int
    empty_hypotheses: int

    @property
    def wer_percent(self) -> float:
        """The word error rate. Above 100 where more is inserted than was said."""
        return self._percent(self.substitutions + self.deletions + self.insertions)

    @property
    def deletions_percent(self) -> float:
        """The part of the reference words that is missing: what coarse activations cost first, on long audio most."""
        return self._percent(self.deletions)

    def _percent(self, count: int) -> float:
        return round(100 * count / self.words, 4)


def count(reference: str, hypothesis: str, *, ignore_case_and_punctuation: bool) -> WordErrors:
    """Compare one utterance. The reference must hold a word.

    With `ignore_case_and_punctuation` both are lowered, and what is not a letter, a digit or an apostrophe separates
    words: for references without either, and models that write both.
    """
    if ignore_case_and_punctuation:
        reference, hypothesis = (_PUNCTUATION.sub(" ", text.lower()) for text in (reference, hypothesis))
    found = jiwer.process_words(reference, hypothesis)
    hypothesis_words = found.hits + found.substitutions + found.insertions
    return WordErrors(
        utterances=1,
        words=found.hits + found.substitutions + found.deletions,
        hypothesis_words=hypothesis_words,
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=found.insertions,
        empty_hypotheses=int(hypothesis_words == 0),
    )


def total(counts: Iterable[WordErrors]) -> WordErrors:
    """Add counts up."""
    each = list(counts)
    return WordErrors(
        utterances=sum(one.utterances for one in each),
        words=sum(one.words for one in each),
        hypothesis_words=sum(one.hypothesis_words for one in each),
        substitutions=sum(one.substitutions for one in each),
        deletions=sum(one.deletions for one in each),
        insertions=sum(one.insertions for one in each),
        empty_hypotheses=sum(one.empty_hypotheses for one in each),
    )

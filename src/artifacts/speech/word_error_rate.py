"""Word error rates of a corpus: transcribe it, count the errors, and write the report.

jiwer counts the least number of edits between the word sequences. Counts add up over utterances, rates do not: a rate
over several utterances is the sum of their errors over the sum of their reference words.

`metrics.json` has counts, and rates in percent of the reference words, in total and for each slice.
`hypotheses.jsonl` has the reference, hypothesis and errors of each utterance, in the order of the corpus.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jiwer

from artifacts.errors import StepError
from artifacts.speech.corpus import MANIFEST_NAME, Corpus, Utterance
from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SECONDS_BETWEEN_PROGRESS = 1.0

_PUNCTUATION = re.compile(r"[^\w\s']|_")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WordErrors:
    """Counts of words and errors in one utterance or several."""

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
        """Return the word error rate. It exceeds 100 if there are more errors than reference words."""
        return self._percent(self.substitutions + self.deletions + self.insertions)

    @property
    def deletions_percent(self) -> float:
        """Return the rate of deleted words. Coarsely quantised activations raise it first, most on long recordings."""
        return self._percent(self.deletions)

    def _percent(self, count: int) -> float:
        return round(100 * count / self.words, 4)


class Transcript(NamedTuple):
    """The hypothesis for an utterance, and its errors."""

    utterance: Utterance
    hypothesis: str
    errors: WordErrors


def count_errors(reference: str, hypothesis: str, *, ignore_case_and_punctuation: bool) -> WordErrors:
    """Count the errors of a hypothesis against the reference, which must have a word.

    With `ignore_case_and_punctuation` both texts are changed to lower case, and every character but letters, digits and
    apostrophes separates words. Use it if the references have no case and punctuation, but the model writes both.
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


def sum_errors(counts: Iterable[WordErrors]) -> WordErrors:
    """Add the counts of several utterances."""
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


def transcribe_corpus(
    corpus: Corpus, transcribe: Callable[[npt.NDArray[np.float32]], str], *, ignore_case_and_punctuation: bool
) -> list[Transcript]:
    """Transcribe each utterance's waveform, float32 `[N]` at 16 kHz, with `transcribe`, and count the errors.

    Reports progress about once a second. Raises StepError, before the first utterance, if a reference has no word.
    Also raises what `Corpus.waveform` and `transcribe` raise.
    """
    for utterance in corpus.utterances:
        if not count_errors(utterance.text, "", ignore_case_and_punctuation=ignore_case_and_punctuation).words:
            raise StepError(
                f"{corpus.folder.name}/{MANIFEST_NAME}: utterance '{utterance.id}': text: {utterance.text!r} has no "
                f"word{' once punctuation is ignored' if ignore_case_and_punctuation else ''}",
                "write what is said, or leave the utterance out",
            )
    transcripts: list[Transcript] = []
    reported = time.monotonic()
    for done, utterance in enumerate(corpus.utterances, start=1):
        waveform = corpus.waveform(utterance)
        location = f"{corpus.folder.name}: utterance '{utterance.id}'"
        with bounded_memory(bytes_for_speech(utterance.duration), location):
            hypothesis = transcribe(waveform)
        errors = count_errors(utterance.text, hypothesis, ignore_case_and_punctuation=ignore_case_and_punctuation)
        transcripts.append(Transcript(utterance, hypothesis, errors))
        if time.monotonic() - reported >= SECONDS_BETWEEN_PROGRESS or done == len(corpus.utterances):
            reported = time.monotonic()
            log.info("transcribing", extra={"done": done, "total": len(corpus.utterances)})
    return transcripts


def write_report(out: Path, transcripts: Sequence[Transcript]) -> dict[str, float | int | str]:
    """Write `metrics.json` and `hypotheses.jsonl`; return flat metrics: in total, and `…_<slice>` for each slice."""
    slices = {
        name: sum_errors(each.errors for each in transcripts if each.utterance.slice == name)
        for name in dict.fromkeys(each.utterance.slice for each in transcripts)
    }
    total = sum_errors(slices.values())
    _write_hypotheses(out / "hypotheses.jsonl", transcripts)
    metrics = {"total": _record(total), "slices": {name: _record(errors) for name, errors in slices.items()}}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    flat: dict[str, float | int | str] = {
        "wer_percent": total.wer_percent,
        "words": total.words,
        "empty_hypotheses": total.empty_hypotheses,
    }
    for name, errors in slices.items():
        flat[f"wer_percent_{name}"] = errors.wer_percent
        flat[f"deletions_percent_{name}"] = errors.deletions_percent
    return flat


def _record(errors: WordErrors) -> dict[str, float]:
    rates = {"wer_percent": errors.wer_percent, "deletions_percent": errors.deletions_percent}
    return rates | dataclasses.asdict(errors)


def _write_hypotheses(path: Path, transcripts: Sequence[Transcript]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for utterance, hypothesis, errors in transcripts:
            line = {
                "id": utterance.id,
                "slice": utterance.slice,
                "text": utterance.text,
                "hypothesis": hypothesis,
                "substitutions": errors.substitutions,
                "deletions": errors.deletions,
                "insertions": errors.insertions,
            }
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")

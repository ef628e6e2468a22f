"""Transcribes a corpus, counts the words that are wrong, and writes the two files that a measurement of them leaves.

`metrics.json` holds counts, and rates in percent of the reference words, in total and for each slice;
`hypotheses.jsonl` each utterance's reference, hypothesis and errors, in the corpus' order.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from artifacts.errors import StepError
from artifacts.speech.corpus import MANIFEST_NAME, Corpus, Utterance
from artifacts.speech.word_errors import WordErrors, count, total
from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SECONDS_BETWEEN_PROGRESS = 1.0

log = logging.getLogger(__name__)


class Transcript(NamedTuple):
    """What was heard of an utterance, and how far that is from what was said."""

    utterance: Utterance
    hypothesis: str
    errors: WordErrors


def transcribe_corpus(
    corpus: Corpus, transcribe: Callable[[npt.NDArray[np.float32]], str], *, ignore_case_and_punctuation: bool
) -> list[Transcript]:
    """Give each utterance's waveform, float32 `[N]` at 16 kHz, to `transcribe`, and compare the text that comes back.

    Raises StepError, before anything is heard, for an utterance whose text holds no word; and what `Corpus.waveform`
    and `transcribe` raise. Tells its progress once a second.
    """
    for utterance in corpus.utterances:
        if not count(utterance.text, "", ignore_case_and_punctuation=ignore_case_and_punctuation).words:
            raise StepError(
                f"{corpus.folder.name}/{MANIFEST_NAME}: utterance '{utterance.id}': text: {utterance.text!r} holds no "
                f"word{' once punctuation is ignored' if ignore_case_and_punctuation else ''}",
                "write what is said, or leave the utterance out",
            )
    transcripts: list[Transcript] = []
    reported = time.monotonic()
    for done, utterance in enumerate(corpus.utterances, start=1):
        waveform = corpus.waveform(utterance)
        place = f"{corpus.folder.name}: utterance '{utterance.id}'"
        with bounded_memory(bytes_for_speech(utterance.duration), place):
            hypothesis = transcribe(waveform)
        errors = count(utterance.text, hypothesis, ignore_case_and_punctuation=ignore_case_and_punctuation)
        transcripts.append(Transcript(utterance, hypothesis, errors))
        if time.monotonic() - reported >= SECONDS_BETWEEN_PROGRESS or done == len(corpus.utterances):
            reported = time.monotonic()
            log.info("transcribing", extra={"done": done, "total": len(corpus.utterances)})
    return transcripts


def write_report(out: Path, transcripts: Sequence[Transcript]) -> dict[str, float | int | str]:
    """Write both files to `out`; return the rates as flat metrics: in total, and `…_<slice>` for each slice."""
    slices = {
        name: total(each.errors for each in transcripts if each.utterance.slice == name)
        for name in dict.fromkeys(each.utterance.slice for each in transcripts)
    }
    everything = total(slices.values())
    _write_hypotheses(out / "hypotheses.jsonl", transcripts)
    metrics = {"total": _record(everything), "slices": {name: _record(errors) for name, errors in slices.items()}}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    flat: dict[str, float | int | str] = {
        "wer_percent": everything.wer_percent,
        "words": everything.words,
        "empty_hypotheses": everything.empty_hypotheses,
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

"""Measure the word error rate of a transducer on a corpus, slice by slice.

The exported graphs are run as consumers run them: one utterance at a time through the preprocessor, the encoder and
greedy token-and-duration decoding, each recording in one piece however long it is. So what an artifact loses on long
recordings, where a dynamic int8 scale grows coarse and soft words become blanks, shows in the slices that hold them.

Writes `metrics.json` (counts and rates in percent of the reference words, in total and for each slice) and
`hypotheses.jsonl` (each utterance's reference, hypothesis and errors, in the corpus' order).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.asr.corpus import Utterance
    from artifacts.asr.transducer import Transducer
    from artifacts.asr.word_errors import WordErrors

TOOLS = ("onnxruntime", "numpy", "soundfile", "jiwer", "rapidfuzz")

SECONDS_BETWEEN_PROGRESS = 1.0

log = logging.getLogger(__name__)


class Params(StepParams):
    """What of the corpus is measured, how words are compared, and with how many threads."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """The slices to measure; all of the corpus unless given."""
    ignore_case_and_punctuation: bool = False
    threads: int = Field(1, gt=0, le=64)
    """Threads within an operator. They may decide the last bits of a sum, so they are part of the measurement."""


def run(
    out: Path,
    params: Params,
    *,
    encoder: Path,
    preprocessor: Path,
    tokens: Path,
    model_meta: Path,
    corpus: Path,
    decoder_joint: Path | None = None,
    predictor: Path | None = None,
    joint: Path | None = None,
) -> dict[str, float | int | str]:
    """Transcribe the corpus with `decoder_joint`, or with `predictor` and `joint`, and count the words that are wrong.

    Raises StepError if neither or both forms are given, if the artifacts do not belong to one checkpoint, and for
    whatever is wrong with the corpus.
    """
    from artifacts.asr.corpus import read_corpus
    from artifacts.asr.decoding import read_decoding
    from artifacts.asr.frontend import Encoder, Preprocessor
    from artifacts.asr.greedy import decode
    from artifacts.asr.tokens import detokenize, read_pieces
    from artifacts.asr.word_errors import count, total
    from artifacts.graph.model_file import find_model

    decoding = read_decoding(model_meta / "model_meta.json")
    pieces = read_pieces(tokens / "vocab.txt", decoding)
    transducer = _open_transducer(decoder_joint, predictor, joint, params.threads, decoding.blank_id)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    encode = Encoder(find_model(encoder), params.threads)
    speech = read_corpus(corpus, params.slices)

    results: list[tuple[Utterance, str, WordErrors]] = []
    reported = time.monotonic()
    for done, utterance in enumerate(speech.utterances, start=1):
        frames = encode.frames(*preprocess.features(speech.waveform(utterance)))
        hypothesis = detokenize(pieces, decode(transducer, frames, decoding))
        errors = count(utterance.text, hypothesis, ignore_case_and_punctuation=params.ignore_case_and_punctuation)
        results.append((utterance, hypothesis, errors))
        if time.monotonic() - reported >= SECONDS_BETWEEN_PROGRESS or done == len(speech.utterances):
            reported = time.monotonic()
            log.info("transcribing", extra={"done": done, "total": len(speech.utterances)})

    slices = {
        name: total(errors for utterance, _, errors in results if utterance.slice == name)
        for name in dict.fromkeys(utterance.slice for utterance, _, _ in results)
    }
    everything = total(slices.values())
    _write_hypotheses(out / "hypotheses.jsonl", results)
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


def _open_transducer(
    decoder_joint: Path | None, predictor: Path | None, joint: Path | None, threads: int, blank_id: int
) -> Transducer:
    from artifacts.asr.transducer import FusedTransducer, SeparateTransducer
    from artifacts.graph.model_file import find_model

    if decoder_joint and not predictor and not joint:
        return FusedTransducer(find_model(decoder_joint), threads, blank_id)
    if predictor and joint and not decoder_joint:
        return SeparateTransducer(find_model(predictor), find_model(joint), threads, blank_id)
    given = {"decoder_joint": decoder_joint, "predictor": predictor, "joint": joint}
    names = [name for name, folder in given.items() if folder]
    raise StepError(
        f"the inputs {' and '.join(names) or 'decoder_joint, predictor and joint'} "
        f"{'do not make one decoder' if names else 'are all missing'}",
        "give either decoder_joint, or predictor and joint",
    )


def _record(errors: WordErrors) -> dict[str, float]:
    rates = {"wer_percent": errors.wer_percent, "deletions_percent": errors.deletions_percent}
    return rates | dataclasses.asdict(errors)


def _write_hypotheses(path: Path, results: list[tuple[Utterance, str, WordErrors]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for utterance, hypothesis, errors in results:
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

"""Measure the word error rate of a transducer on a corpus, slice by slice.

The exported graphs are run as consumers run them: one utterance at a time through the preprocessor, the encoder and
greedy decoding (TDT or RNN-T), each recording in one piece however long it is. So what an artifact loses on long
recordings, where a dynamic int8 scale grows coarse and soft words become blanks, shows in the slices that hold them.

With `buffered`, recordings are transcribed as streams are: in chunks, each encoded with context before and after it,
and decoded from where the chunk before it ended. So an offline encoder streams, at a price in words and in computing
(`speech/buffered.py`). The metrics are then, besides those of whole recordings: `latency_seconds`, how long a sound
waits at most (chunk and right context); `encoded_times`, how often a second of a long recording is encoded; and
`real_time_factor`, the seconds of processor time that a second of speech took on the machine that measured.

Writes `metrics.json` (counts and rates in percent of the reference words, in total and for each slice) and
`hypotheses.jsonl` (each utterance's reference, hypothesis and errors, in the corpus' order).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from artifacts.speech.buffered import Buffering
    from artifacts.speech.transducer import Transducer

TOOLS = ("onnxruntime", "numpy", "soundfile", "jiwer", "rapidfuzz")

DEPENDS_ON_PROCESSOR = True


class Buffered(StepParams):
    """How a stream is cut up, each a whole number of the encoder's frames: of 0.08 s, for FastConformers.

    The defaults are those with which Parakeet's model card streams in NeMo. At their longest a window is 240 s, within
    the tables of positions that encoders are exported with (400 s).
    """

    chunk_seconds: float = Field(2.0, ge=0.01, le=60)
    """What is decoded at a time."""
    left_seconds: float = Field(10.0, ge=0, le=120)
    """What is encoded again before it."""
    right_seconds: float = Field(2.0, ge=0, le=60)
    """What is waited for after it."""


class Params(StepParams):
    """What of the corpus is measured, as recordings or as streams, how words are compared, with how many threads."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """The slices to measure; all of the corpus unless given."""
    buffered: Buffered | None = None
    """Hear recordings as streams; whole unless given. An empty mapping means the defaults."""
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

    Raises StepError if neither or both forms are given, if the artifacts do not belong to one checkpoint, if a part of
    `buffered` is no whole number of encoder frames, and for whatever is wrong with the corpus, a text without a word
    among it.
    """
    from artifacts.graph.model_file import find_model
    from artifacts.speech.buffered import BufferedFrontend
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.decoding import read_decoding
    from artifacts.speech.frontend import Encoder, Preprocessor
    from artifacts.speech.greedy import decode
    from artifacts.speech.tokens import detokenize, read_pieces
    from artifacts.speech.wer_report import transcribe_corpus, write_report

    meta = model_meta / "model_meta.json"
    decoding = read_decoding(meta)
    pieces = read_pieces(tokens / "vocab.txt", decoding)
    transducer = _open_transducer(decoder_joint, predictor, joint, params.threads, decoding.blank_id)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    encode = Encoder(find_model(encoder), params.threads)
    buffering = _buffering(params.buffered, meta)
    stream = BufferedFrontend(preprocess, encode, buffering) if buffering else None
    speech = read_corpus(corpus, params.slices)

    def transcribe(waveform: npt.NDArray[np.float32]) -> str:
        frames = stream.frames(waveform) if stream else encode.frames(*preprocess.features(waveform))
        return detokenize(pieces, decode(transducer, frames, decoding))

    began = time.process_time()  # by the clock it would be slower beside other targets
    lenient = params.ignore_case_and_punctuation
    transcripts = transcribe_corpus(speech, transcribe, ignore_case_and_punctuation=lenient)
    seconds = time.process_time() - began
    metrics = write_report(out, transcripts)
    if not buffering:
        return metrics
    of_streams: dict[str, float | int | str] = {
        "latency_seconds": buffering.latency_seconds,
        "encoded_times": buffering.encoded_times,
        "real_time_factor": round(seconds / sum(utterance.duration for utterance in speech.utterances), 4),
    }
    # Right behind the error rate: tables show the first few.
    return {"wer_percent": metrics["wer_percent"]} | of_streams | metrics


def _buffering(buffered: Buffered | None, model_meta: Path) -> Buffering | None:
    if not buffered:
        return None
    from artifacts.speech.buffered import Buffering, read_frame_size

    frame = read_frame_size(model_meta)
    return Buffering(
        frame,
        chunk=frame.count("buffered.chunk_seconds", buffered.chunk_seconds),
        left=frame.count("buffered.left_seconds", buffered.left_seconds),
        right=frame.count("buffered.right_seconds", buffered.right_seconds),
    )


def _open_transducer(
    decoder_joint: Path | None, predictor: Path | None, joint: Path | None, threads: int, blank_id: int
) -> Transducer:
    from artifacts.graph.model_file import find_model
    from artifacts.speech.transducer import FusedTransducer, SeparateTransducer

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

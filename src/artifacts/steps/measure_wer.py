"""Measure the word error rate of an offline ONNX transducer on a corpus, slice by slice.

The exported graphs run as consumers run them: one utterance at a time through the preprocessor, the encoder and greedy
decoding (TDT or RNN-T), each recording as a whole, however long it is. In a long recording a dynamic int8 scale has to
cover louder values, and soft words become blanks: the slices of long recordings show that loss.

With `buffered`, recordings are transcribed as streams: in chunks, each encoded with context before and after it, and
decoded from the end of the chunk before it. So an offline encoder streams, at a cost in words and in computing
(`speech/buffered.py`). There are three more metrics. `latency_seconds` is the longest wait of a sound (chunk and right
context). `encoded_times` is how many times a second of a long recording is encoded. `real_time_factor` is the processor
time for a second of speech on the measuring machine.

Writes two files. `metrics.json` has counts and rates in percent of the reference words, in total and for each slice.
`hypotheses.jsonl` has the reference, the hypothesis and the errors of each utterance, in the order of the corpus.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams
from artifacts.speech.transcription_params import TranscriptionParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from artifacts.speech.buffered import Buffering
    from artifacts.speech.greedy import StatefulTransducer

TOOLS = ("onnxruntime", "numpy", "soundfile", "jiwer", "rapidfuzz")

DEPENDS_ON_PROCESSOR = True
HEADLINE = ("wer_percent", "latency_seconds", "real_time_factor")


class Buffered(StepParams):
    """Chunk and contexts, each a whole number of encoder frames (0.08 s for FastConformers).

    The defaults are those of Parakeet's model card for streaming in NeMo. The longest window is 240 s, within the
    tables of positions of exported encoders (400 s).
    """

    chunk_seconds: float = Field(2.0, ge=0.01, le=60)
    """Speech that is decoded at a time."""
    left_seconds: float = Field(10.0, ge=0, le=120)
    """Speech before the chunk, which is encoded again."""
    right_seconds: float = Field(2.0, ge=0, le=60)
    """Speech after the chunk, which adds to the latency."""


class Params(TranscriptionParams):
    """The part of the corpus, whether recordings are streamed, how words are compared, and the number of threads."""

    buffered: Buffered | None = None
    """Transcribe recordings as streams; as a whole by default. An empty mapping means the defaults of its keys."""


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
    """Transcribe the corpus with `decoder_joint`, or with `predictor` and `joint`, and count word errors.

    Raises StepError unless exactly one of the two forms is given, and if the artifacts are not of one checkpoint.
    Raises it if a part of `buffered` is not a whole number of encoder frames, and for an invalid corpus.
    """
    from artifacts.graph.model_file import find_model
    from artifacts.speech.buffered import BufferedFrontend
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.decoding import detokenize, read_decoding, read_vocabulary
    from artifacts.speech.frontend import OnnxEncoder, Preprocessor
    from artifacts.speech.greedy import decode
    from artifacts.speech.word_error_rate import transcribe_corpus, write_report

    meta = model_meta / "model_meta.json"
    decoding = read_decoding(meta)
    pieces = read_vocabulary(tokens / "vocab.txt", decoding)
    transducer = _open_transducer(decoder_joint, predictor, joint, params.threads, decoding.blank_id)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    encode = OnnxEncoder(find_model(encoder), params.threads)
    buffering = _buffering(params.buffered, meta)
    stream = BufferedFrontend(preprocess, encode, buffering) if buffering else None
    speech = read_corpus(corpus, params.slices)

    def transcribe(waveform: npt.NDArray[np.float32]) -> str:
        frames = stream.frames(waveform) if stream else encode.frames(*preprocess.features(waveform))
        return detokenize(pieces, decode(transducer, frames, decoding))

    began = time.process_time()  # wall time would depend on the targets that build at the same time
    lenient = params.ignore_case_and_punctuation
    transcripts = transcribe_corpus(speech, transcribe, ignore_case_and_punctuation=lenient)
    seconds = time.process_time() - began
    metrics = write_report(out, transcripts)
    if not buffering:
        return metrics
    streaming: dict[str, float | int | str] = {
        "latency_seconds": buffering.latency_seconds,
        "encoded_times": buffering.encoded_times,
        "real_time_factor": round(seconds / sum(utterance.duration for utterance in speech.utterances), 4),
    }
    # After the error rate, because tables show the first few metrics.
    return {"wer_percent": metrics["wer_percent"]} | streaming | metrics


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
) -> StatefulTransducer:
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

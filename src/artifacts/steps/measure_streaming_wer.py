"""Measure the word error rate of a streaming transducer on a corpus, chunk by chunk, slice by slice.

Recordings are heard as streams are: the encoder is given one chunk at a time with the caches that it left behind, and
greedy decoding goes on from where the chunk before it ended. Features are computed for the recording at once; a
checkpoint that was trained to stream does not normalise them, so that they are those of a stream.

Metrics are, besides the rates: `latency_seconds`, how long a sound waits at most for its chunk to end, and
`real_time_factor`, the seconds that a second of speech took on this machine, beside all else that it did.

Writes `metrics.json` (counts and rates in percent of the reference words, in total and for each slice) and
`hypotheses.jsonl` (each utterance's reference, hypothesis and errors, in the corpus' order).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.params import StepParams

if TYPE_CHECKING:
    import numpy.typing as npt

TOOLS = ("onnxruntime", "numpy", "soundfile", "jiwer", "rapidfuzz")

DEPENDS_ON_PROCESSOR = True


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
    predictor: Path,
    joint: Path,
    preprocessor: Path,
    tokens: Path,
    model_meta: Path,
    corpus: Path,
) -> dict[str, float | int | str]:
    """Transcribe the corpus chunk by chunk and count the words that are wrong.

    Raises StepError if the encoder is none that streams, if the artifacts do not belong to one checkpoint, and for
    whatever is wrong with the corpus.
    """
    import numpy as np

    from artifacts.graph.model_file import find_model
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.decoding import read_decoding
    from artifacts.speech.frontend import Preprocessor
    from artifacts.speech.greedy import Greedy
    from artifacts.speech.streaming_encoder import StreamingEncoder
    from artifacts.speech.tokens import detokenize, read_pieces
    from artifacts.speech.transducer import SeparateTransducer
    from artifacts.speech.wer_report import transcribe_corpus, write_report

    meta = model_meta / "model_meta.json"
    decoding = read_decoding(meta)
    pieces = read_pieces(tokens / "vocab.txt", decoding)
    networks = find_model(predictor), find_model(joint)
    greedy = Greedy(SeparateTransducer(*networks, params.threads, decoding.blank_id), decoding)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    encode = StreamingEncoder(find_model(encoder), params.threads)
    speech = read_corpus(corpus, params.slices)

    def transcribe(waveform: npt.NDArray[np.float32]) -> str:
        greedy.start()
        features, _ = preprocess.features(waveform)
        # All of them: NeMo's streaming also counts the last one, which lies behind the samples and holds padding.
        for frames in encode.chunks(features, np.array([features.shape[2]])):
            greedy.accept(frames)
        return detokenize(pieces, greedy.tokens)

    began = time.monotonic()
    lenient = params.ignore_case_and_punctuation
    transcripts = transcribe_corpus(speech, transcribe, ignore_case_and_punctuation=lenient)
    seconds = time.monotonic() - began
    metrics = write_report(out, transcripts)
    of_streams: dict[str, float | int | str] = {
        "latency_seconds": round(encode.cut.chunk_frames * _hop_seconds(meta), 4),
        "real_time_factor": round(seconds / sum(utterance.duration for utterance in speech.utterances), 4),
    }
    # Right behind the error rate: tables show the first few.
    return {"wer_percent": metrics["wer_percent"]} | of_streams | metrics


def _hop_seconds(model_meta: Path) -> float:
    from artifacts.model.model_meta import ModelMeta

    meta = ModelMeta(model_meta, "write the model_meta again from the checkpoint")
    return meta.size("features.hop_length") / meta.size("sample_rate")

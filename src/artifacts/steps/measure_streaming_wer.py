"""Measure the word error rate of a streaming (cache-aware) ONNX transducer on a corpus, slice by slice.

Recordings are transcribed as streams: the encoder gets one chunk at a time with its caches, and greedy decoding goes on
from the end of the chunk before. Features are computed for the whole recording. A checkpoint that was trained to stream
does not normalise them, so they equal those of a stream.

Besides the rates there are two metrics. `latency_seconds` is the longest wait of a sound for the end of its chunk.
`real_time_factor` is the wall time for a second of speech on this machine, with everything else that it did.

Writes two files. `metrics.json` has counts and rates in percent of the reference words, in total and for each slice.
`hypotheses.jsonl` has the reference, the hypothesis and the errors of each utterance, in the order of the corpus.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.speech.transcription_params import TranscriptionParams

if TYPE_CHECKING:
    import numpy.typing as npt

TOOLS = ("onnxruntime", "numpy", "soundfile", "jiwer", "rapidfuzz")

DEPENDS_ON_PROCESSOR = True
HEADLINE = ("wer_percent", "latency_seconds", "real_time_factor")


class Params(TranscriptionParams):
    """The part of the corpus, how words are compared, and the number of threads."""


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
    """Transcribe the corpus chunk by chunk and count word errors.

    Raises StepError if the encoder is not a streaming one, if the artifacts are not of one checkpoint, and for an
    invalid corpus.
    """
    import numpy as np

    from artifacts.graph.model_file import find_model
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.decoding import detokenize, read_decoding, read_vocabulary
    from artifacts.speech.frontend import Preprocessor
    from artifacts.speech.greedy import Greedy
    from artifacts.speech.streaming_encoder import StreamingEncoder
    from artifacts.speech.transducer import SeparateTransducer
    from artifacts.speech.word_error_rate import transcribe_corpus, write_report

    meta = model_meta / "model_meta.json"
    decoding = read_decoding(meta)
    pieces = read_vocabulary(tokens / "vocab.txt", decoding)
    networks = find_model(predictor), find_model(joint)
    greedy = Greedy(SeparateTransducer(*networks, params.threads, decoding.blank_id), decoding)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    encode = StreamingEncoder(find_model(encoder), params.threads)
    speech = read_corpus(corpus, params.slices)

    def transcribe(waveform: npt.NDArray[np.float32]) -> str:
        greedy.start()
        features, _ = preprocess.features(waveform)
        # All features, as in NeMo's streaming: the last one comes after the samples and contains padding.
        for frames in encode.chunks(features, np.array([features.shape[2]])):
            greedy.accept(frames)
        return detokenize(pieces, greedy.tokens)

    began = time.monotonic()
    lenient = params.ignore_case_and_punctuation
    transcripts = transcribe_corpus(speech, transcribe, ignore_case_and_punctuation=lenient)
    seconds = time.monotonic() - began
    metrics = write_report(out, transcripts)
    streaming: dict[str, float | int | str] = {
        "latency_seconds": round(encode.schedule.chunk_frames * _hop_seconds(meta), 4),
        "real_time_factor": round(seconds / sum(utterance.duration for utterance in speech.utterances), 4),
    }
    # After the error rate, because tables show the first few metrics.
    return {"wer_percent": metrics["wer_percent"]} | streaming | metrics


def _hop_seconds(model_meta: Path) -> float:
    from artifacts.model.model_meta import ModelMeta

    meta = ModelMeta(model_meta, "write the model_meta again from the checkpoint")
    return meta.size("features.hop_length") / meta.size("sample_rate")

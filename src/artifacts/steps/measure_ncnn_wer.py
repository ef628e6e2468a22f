"""Measure the word error rate of a FastConformer-TDT in ncnn on whole recordings, slice by slice.

Features come from the exported `preprocessor`. Each recording runs as a whole and is decoded as `measure_wer` decodes
the ONNX models, so the two can be compared. Arithmetic is float32 whatever the weights are stored as, except in int8
layers. `measure_sherpa_ncnn_wer` measures a streaming LSTM transducer.

Writes two files. `metrics.json` has counts and rates in percent of the reference words, in total and for each slice.
`hypotheses.jsonl` has the reference, the hypothesis and the errors of each utterance, in the order of the corpus.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.speech.transcription_params import TranscriptionParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TOOLS = ("jiwer", "ncnn", "numpy", "onnxruntime", "rapidfuzz", "soundfile")

DEPENDS_ON_PROCESSOR = True
HEADLINE = ("wer_percent", "empty_hypotheses")


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
    """Transcribe the corpus and count word errors.

    Metrics are those of `measure_wer`. Raises StepError if the networks are not of one model, if ncnn crashes on them,
    and for an invalid corpus.
    """
    from artifacts.graph.model_file import find_model
    from artifacts.ncnn.param_file import find_net
    from artifacts.ncnn.runtime import run_isolated
    from artifacts.ncnn.tdt_transducer import NcnnEncoder, NcnnTransducer
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.decoding import detokenize, read_decoding, read_vocabulary
    from artifacts.speech.frontend import Preprocessor
    from artifacts.speech.greedy import decode
    from artifacts.speech.word_error_rate import transcribe_corpus, write_report

    speech = read_corpus(corpus, params.slices)
    for folder in (encoder, predictor, joint):
        run_isolated(*find_net(folder), [])
    decoding = read_decoding(model_meta / "model_meta.json")
    pieces = read_vocabulary(tokens / "vocab.txt", decoding)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    encode = NcnnEncoder(encoder, params.threads)
    transducer = NcnnTransducer(predictor, joint, decoding.blank_id, params.threads)

    def transcribe(waveform: npt.NDArray[np.float32]) -> str:
        frames = encode.frames(*preprocess.features(waveform))
        return detokenize(pieces, decode(transducer, frames, decoding))

    lenient = params.ignore_case_and_punctuation
    return write_report(out, transcribe_corpus(speech, transcribe, ignore_case_and_punctuation=lenient))

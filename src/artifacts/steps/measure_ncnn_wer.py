"""Measure the word error rate of an ncnn transducer on a corpus, slice by slice.

Two models. An LSTM transducer is streamed as sherpa-ncnn does it: nine frames of features at a time, four further on
each time, half a second of silence behind the end. A FastConformer-TDT hears each recording in one piece, its features
from the exported `preprocessor`, and is decoded as `measure_wer` decodes the ONNX models, with which it can be
compared. Arithmetic is float32 whatever the weights are stored as, but for layers that are int8.

Writes `metrics.json` (counts and rates in percent of the reference words, in total and for each slice) and
`hypotheses.jsonl` (each utterance's reference, hypothesis and errors, in the corpus' order), as `measure_wer` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from artifacts.speech.corpus import Corpus

    Transcribe = Callable[[npt.NDArray[np.float32]], str]

Folders = tuple[Path, Path, Path]
"""Of the encoder, the predictor and the joint."""

TOOLS = (
    "jiwer", "kaldi-native-fbank", "ncnn", "numpy", "onnxruntime", "rapidfuzz", "sherpa-ncnn", "soundfile",
)  # fmt: skip

DEPENDS_ON_PROCESSOR = True

log = logging.getLogger(__name__)


class Params(StepParams):
    """What of the corpus is measured, how words are compared, and whether sherpa-ncnn hears it too."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """The slices to measure; all of the corpus unless given."""
    ignore_case_and_punctuation: bool = False
    threads: int = Field(1, gt=0, le=64)
    """Threads within a layer. They may decide the last bits of a sum, so they are part of the measurement."""
    compare_with_sherpa: bool = False
    """Give each recording to sherpa-ncnn as well, and count those of which it hears the same tokens.

    Predictor and joint then compute as they do there, with fp16 between layers where the processor can. Recordings of
    minutes come out equal in int8 with the ncnn alone that sherpa-ncnn was built from (2.1.15: 1.0.20250916; the pin in
    pipeline.yaml is later): others round otherwise in their int8 layers, and what an LSTM remembers of that adds up.
    """


def run(
    out: Path,
    params: Params,
    *,
    encoder: Path,
    predictor: Path,
    joint: Path,
    tokens: Path,
    corpus: Path,
    preprocessor: Path | None = None,
    model_meta: Path | None = None,
) -> dict[str, float | int | str]:
    """Transcribe the corpus and count the words that are wrong; `preprocessor` and `model_meta` belong to a TDT model.

    Metrics are those of `measure_wer`; with `compare_with_sherpa` also the utterances, and of how many sherpa-ncnn
    hears the very same tokens. Raises StepError if the networks are not of one model, or ncnn or sherpa-ncnn does not
    survive them, and for whatever is wrong with the corpus.
    """
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.wer_report import transcribe_corpus, write_report

    speech = read_corpus(corpus, params.slices)
    folders = (encoder, predictor, joint)
    heard: list[list[int]] = []
    if preprocessor and model_meta:
        if params.compare_with_sherpa:
            raise StepError(
                "compare_with_sherpa: sherpa-ncnn has no type for a FastConformer-TDT",
                "compare an LSTM transducer, or leave compare_with_sherpa out",
            )
        transcribe = _whole(folders, tokens, preprocessor, model_meta, params.threads)
    elif preprocessor or model_meta:
        raise StepError("of the inputs preprocessor and model_meta one is missing", "give both, or neither")
    else:
        transcribe = _streamed(folders, tokens, params, heard)
    transcripts = transcribe_corpus(speech, transcribe, ignore_case_and_punctuation=params.ignore_case_and_punctuation)
    metrics = write_report(out, transcripts)
    if params.compare_with_sherpa:
        metrics["sherpa_equal_utterances"] = _heard_alike(folders, tokens, speech, heard)
        metrics["utterances"] = len(heard)
    return metrics


def _streamed(folders: Folders, tokens: Path, params: Params, heard: list[list[int]]) -> Transcribe:
    """Transcribes a recording, and leaves its token ids in `heard`."""
    from artifacts.ncnn.lstm_transducer import LstmTransducer, token_count
    from artifacts.ncnn.sherpa_tokens import find_tokens, read_tokens
    from artifacts.speech.streaming_rnnt import transcribe
    from artifacts.speech.tokens import detokenize

    networks = LstmTransducer(*folders, threads=params.threads, as_sherpa=params.compare_with_sherpa)
    pieces = read_tokens(find_tokens(tokens), token_count(folders[1]))

    def hear(waveform: npt.NDArray[np.float32]) -> str:
        heard.append(transcribe(networks, waveform))
        return detokenize(pieces, heard[-1])

    return hear


def _whole(folders: Folders, tokens: Path, preprocessor: Path, model_meta: Path, threads: int) -> Transcribe:
    from artifacts.graph.model_file import find_model
    from artifacts.ncnn.isolated import run_isolated
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.transducer import Encoder, Transducer
    from artifacts.speech.decoding import read_decoding
    from artifacts.speech.frontend import Preprocessor
    from artifacts.speech.greedy import decode
    from artifacts.speech.tokens import detokenize, read_pieces

    for folder in folders:
        run_isolated(*find_net(folder), [])
    encoder, predictor, joint = folders
    decoding = read_decoding(model_meta / "model_meta.json")
    pieces = read_pieces(tokens / "vocab.txt", decoding)
    preprocess = Preprocessor(find_model(preprocessor), threads)
    encode = Encoder(encoder, threads)
    transducer = Transducer(predictor, joint, threads, decoding.blank_id)

    def transcribe(waveform: npt.NDArray[np.float32]) -> str:
        frames = encode.frames(*preprocess.features(waveform))
        return detokenize(pieces, decode(transducer, frames, decoding))

    return transcribe


def _heard_alike(folders: Folders, tokens: Path, speech: Corpus, heard: list[list[int]]) -> int:
    """In how many of the utterances sherpa-ncnn, in its own process, hears the tokens that we did."""
    import numpy as np

    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.sherpa_recognizer import SherpaFiles, SherpaRecognizer
    from artifacts.ncnn.sherpa_tokens import find_tokens
    from artifacts.speech.corpus import SAMPLE_RATE_HZ
    from artifacts.speech.streaming_rnnt import TAIL_SECONDS

    files = SherpaFiles(find_tokens(tokens), *(path for folder in folders for path in find_net(folder)))
    tail = (0, round(TAIL_SECONDS * SAMPLE_RATE_HZ))
    alike = 0
    with SherpaRecognizer(files) as recognizer:
        for done, (utterance, ours) in enumerate(zip(speech.utterances, heard, strict=True), start=1):
            alike += recognizer.tokens(np.pad(speech.waveform(utterance), tail)) == ours
            log.info("comparing with sherpa-ncnn", extra={"done": done, "total": len(heard)})
    return alike

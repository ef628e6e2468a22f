"""Measure the word error rate of an LSTM transducer in ncnn, streamed as in sherpa-ncnn, slice by slice.

The encoder gets nine feature frames at a time, each time four frames further on. Half a second of silence is appended
to each recording. Arithmetic is float32 whatever the weights are stored as, except in int8 layers. `measure_ncnn_wer`
measures a FastConformer-TDT, which sherpa-ncnn does not support.

Writes two files. `metrics.json` has counts and rates in percent of the reference words, in total and for each slice.
`hypotheses.jsonl` has the reference, the hypothesis and the errors of each utterance, in the order of the corpus.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.speech.transcription_params import TranscriptionParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from artifacts.ncnn.sherpa_ncnn import SherpaFiles
    from artifacts.speech.corpus import Corpus

TOOLS = ("jiwer", "kaldi-native-fbank", "ncnn", "numpy", "rapidfuzz", "sherpa-ncnn", "soundfile")

DEPENDS_ON_PROCESSOR = True
HEADLINE = ("wer_percent", "sherpa_equal_utterances", "utterances")

log = logging.getLogger(__name__)


class Params(TranscriptionParams):
    """The part of the corpus, how words are compared, the number of threads, and whether sherpa-ncnn runs as well."""

    compare_with_sherpa: bool = False
    """Transcribe each recording with sherpa-ncnn too, and count the recordings with the same tokens.

    Predictor and joint then compute as in sherpa-ncnn, with fp16 between layers where the processor can. In int8,
    recordings of minutes give equal tokens only with the ncnn that sherpa-ncnn was built from (2.1.15: 1.0.20250916;
    the pin in constraints.txt is later). Other versions round differently in int8 layers, and LSTM states add that up.
    """


def run(
    out: Path, params: Params, *, encoder: Path, predictor: Path, joint: Path, tokens: Path, corpus: Path
) -> dict[str, float | int | str]:
    """Transcribe the corpus and count word errors.

    Metrics are those of `measure_wer`; with `compare_with_sherpa` also the utterances, and how many of them get the
    same tokens from sherpa-ncnn. Raises StepError if the networks are not of one model, if ncnn or sherpa-ncnn crashes
    on them, and for an invalid corpus.
    """
    from artifacts.ncnn.lstm_transducer import NcnnLstmTransducer, vocabulary_size
    from artifacts.ncnn.param_file import find_net
    from artifacts.ncnn.sherpa_ncnn import SherpaFiles, find_tokens, read_tokens
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.decoding import detokenize
    from artifacts.speech.sherpa_streaming import transcribe
    from artifacts.speech.word_error_rate import transcribe_corpus, write_report

    speech = read_corpus(corpus, params.slices)
    folders = (encoder, predictor, joint)
    as_sherpa = params.compare_with_sherpa
    networks = NcnnLstmTransducer(*folders, threads=params.threads, as_sherpa=as_sherpa)
    pieces = read_tokens(find_tokens(tokens), vocabulary_size(predictor))
    ids: list[list[int]] = []

    def transcribe_text(waveform: npt.NDArray[np.float32]) -> str:
        ids.append(transcribe(networks, waveform))
        return detokenize(pieces, ids[-1])

    lenient = params.ignore_case_and_punctuation
    transcripts = transcribe_corpus(speech, transcribe_text, ignore_case_and_punctuation=lenient)
    metrics = write_report(out, transcripts)
    if as_sherpa:
        files = SherpaFiles(find_tokens(tokens), *(path for folder in folders for path in find_net(folder)))
        metrics["sherpa_equal_utterances"] = _count_equal(files, speech, ids)
        metrics["utterances"] = len(ids)
    return metrics


def _count_equal(files: SherpaFiles, speech: Corpus, ids: Sequence[Sequence[int]]) -> int:
    """Return in how many utterances sherpa-ncnn decodes the token ids that this step has decoded."""
    import numpy as np

    from artifacts.ncnn.sherpa_ncnn import SherpaRecognizer
    from artifacts.speech.corpus import SAMPLE_RATE_HZ
    from artifacts.speech.sherpa_streaming import TAIL_SECONDS

    tail = (0, round(TAIL_SECONDS * SAMPLE_RATE_HZ))
    equal = 0
    with SherpaRecognizer(files) as recognizer:
        for done, (utterance, ours) in enumerate(zip(speech.utterances, ids, strict=True), start=1):
            equal += recognizer.tokens(np.pad(speech.waveform(utterance), tail)) == ours
            log.info("comparing with sherpa-ncnn", extra={"done": done, "total": len(ids)})
    return equal

"""Make the tables of int8 scales of an ncnn transducer, by running it over real speech.

The speech is heard twice: first the largest magnitude of what each convolution and InnerProduct reads is found, then
the magnitudes are counted in 2048 bins, of which the threshold comes that loses least (Kullback-Leibler; see
`artifacts.ncnn.kl_threshold`). What is kept does not grow with the corpus. The weights' scales need no speech.

Two models: a FastConformer-TDT, each utterance in its full length, its features from the exported `preprocessor`; and
an LSTM transducer, streaming, its features as sherpa-ncnn computes them, with half a second of silence behind each
utterance. Both are decoded greedily on the way: what a joint reads depends on the tokens.

Writes `encoder.table` and `joint.table`, in the text that `generate-int8-scale-table` writes. A linear layer that is
still a Gemm has no place in them: see `rewrite_ncnn_linears`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from artifacts.ncnn.tapped_net import TappedNet
    from artifacts.speech.corpus import Corpus

    Hear = Callable[[npt.NDArray[np.float32]], int]

TOOLS = ("kaldi-native-fbank", "ncnn", "numpy", "onnxruntime", "soundfile")

DEPENDS_ON_PROCESSOR = True

log = logging.getLogger(__name__)


class Params(StepParams):
    """What is heard, and how its loudest numbers are treated."""

    activations: Literal["kl", "absmax"] = "kl"
    """`kl`: a threshold below the largest magnitude, if that loses less. `absmax`: the largest magnitude itself."""
    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """The slices to hear; all of the corpus unless given."""
    min_seconds: float = Field(60.0, ge=0)
    """A corpus of less speech is refused: its ranges would be those of a few words."""


def run(
    out: Path,
    params: Params,
    *,
    encoder: Path,
    predictor: Path,
    joint: Path,
    corpus: Path,
    preprocessor: Path | None = None,
    model_meta: Path | None = None,
    tool: Path | None = None,
) -> dict[str, float | int | str]:
    """Write the tables of `encoder` and `joint`, which have float weights, from the speech in `corpus`.

    `preprocessor` and `model_meta` belong to a FastConformer-TDT; without them the model is an LSTM transducer. For
    such a one `tool` may be an executable `generate-int8-scale-table`, which is then called; it gets the clips as WAV
    files, and knows `kl` alone.
    Metrics: layers in the tables, utterances heard, their seconds, and, without the tool, tokens decoded and a digest
    of the waveforms in their order.
    Raises StepError for networks that are not these, of which none has a layer for a table, or whose activations are
    not finite; for a corpus that is empty, too short or not as it must be, or that changes meanwhile.
    """
    from artifacts.ncnn.scale_table import SUFFIX, write_table
    from artifacts.speech.corpus import read_corpus

    speech = read_corpus(corpus, params.slices)
    seconds = sum(one.duration for one in speech.utterances)
    if seconds < params.min_seconds:
        raise StepError(
            f"{corpus.name}: holds {seconds:.1f} s of speech, needs {params.min_seconds:g} s",
            "give a corpus with more speech, or more of its slices",
        )
    if tool:
        return _call_tool(
            tool, params, (encoder, predictor, joint), speech, out, whole=bool(preprocessor or model_meta)
        )
    if preprocessor and model_meta:
        hear, nets = _whole_utterances(encoder, predictor, joint, preprocessor, model_meta)
    elif preprocessor or model_meta:
        raise StepError("of the inputs preprocessor and model_meta one is missing", "give both, or neither")
    else:
        hear, nets = _streams(encoder, predictor, joint)
    if not any(net.layers for net in nets.values()):
        raise StepError(
            f"{encoder.name}, {joint.name}: 0 convolutions and InnerProducts with float weights",
            "give the models in fp32; linear layers that are a Gemm need no table, or rewrite_ncnn_linears first",
        )

    tokens, digest = _hear_twice(speech, hear, list(nets.values()))
    layers = {}
    for part, net in nets.items():
        if net.layers:
            write_table(net.table(params.activations), out / f"{part}{SUFFIX}")
        layers[f"{part}_layers"] = len(net.layers)
    return {
        **layers,
        "utterances": len(speech.utterances),
        "seconds": round(seconds, 3),
        "tokens": tokens,
        "speech_sha256": digest,
    }


def _hear_twice(speech: Corpus, hear: Hear, nets: Sequence[TappedNet]) -> tuple[int, str]:
    """Run the networks over the corpus for both of their passes; the tokens of one, and a digest of the waveforms.

    Raises StepError, with the utterance, for what goes wrong in it, and if a clip is another one the second time.
    """
    from artifacts.speech.recordings import SpeechDigest
    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

    digests = [SpeechDigest(), SpeechDigest()]
    tokens = [0, 0]
    total = 2 * len(speech.utterances)
    for done, (second, utterance) in enumerate(product(range(2), speech.utterances), start=1):
        waveform = speech.waveform(utterance)
        digests[second].add(waveform)
        try:
            with bounded_memory(bytes_for_speech(utterance.duration), "the networks"):
                tokens[second] += hear(waveform)
        except StepError as error:
            raise StepError(f"{speech.folder.name}: '{utterance.id}': {error.fact}", error.fix) from None
        log.info("calibrating", extra={"done": done, "total": total})
        if done == len(speech.utterances):
            for net in nets:
                net.begin_second_pass()
    first, again = (digest.hexdigest() for digest in digests)
    if first != again:
        raise StepError(
            f"{speech.folder.name}: the clips changed between the passes", "leave the corpus alone meanwhile"
        )
    return tokens[0], first


def _call_tool(
    tool: Path, params: Params, folders: tuple[Path, Path, Path], speech: Corpus, out: Path, *, whole: bool
) -> dict[str, float | int | str]:
    """Let `generate-int8-scale-table` write the tables."""
    from artifacts.ncnn.named_tools import run_calibrator
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.scale_table import SUFFIX, read_table

    if whole or params.activations != "kl":
        raise StepError(
            f"'{tool.name}' calibrates LSTM transducers, by kl", "leave the tool out, or what it does not know"
        )
    encoder, predictor, joint = (find_net(folder) for folder in folders)
    clips = (speech.waveform(utterance) for utterance in speech.utterances)
    written = run_calibrator(tool, encoder, predictor, joint, clips, out)
    if not written:
        raise StepError(f"'{tool.name}' wrote empty tables: 0 layers", "rewrite_ncnn_linears first")
    return {
        **{f"{part}_layers": len(read_table(out / f"{part}{SUFFIX}").activations) for part in written},
        "utterances": len(speech.utterances),
        "seconds": round(sum(utterance.duration for utterance in speech.utterances), 3),
    }


def _whole_utterances(
    encoder: Path, predictor: Path, joint: Path, preprocessor: Path, model_meta: Path
) -> tuple[Hear, dict[str, TappedNet]]:
    """What hears a waveform and returns the number of tokens; and the networks that it measures."""
    from artifacts.graph.model_file import find_model
    from artifacts.ncnn.isolated import run_isolated
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.tapped_transducer import TappedEncoder, TappedTransducer
    from artifacts.speech.decoding import read_decoding
    from artifacts.speech.frontend import Preprocessor
    from artifacts.speech.greedy import decode

    for folder in (encoder, predictor, joint):
        run_isolated(*find_net(folder), [])
    decoding = read_decoding(model_meta / "model_meta.json")
    preprocess = Preprocessor(find_model(preprocessor), threads=1)
    encode = TappedEncoder(encoder)
    transducer = TappedTransducer(predictor, joint, decoding.blank_id)

    def hear(waveform: npt.NDArray[np.float32]) -> int:
        return len(decode(transducer, encode.frames(*preprocess.features(waveform)), decoding))

    return hear, {"encoder": encode.tapped, "joint": transducer.tapped}


def _streams(encoder: Path, predictor: Path, joint: Path) -> tuple[Hear, dict[str, TappedNet]]:
    """The same of an LSTM transducer, which hears chunk by chunk."""
    from artifacts.ncnn.isolated import open_net, run_isolated
    from artifacts.ncnn.lstm_transducer import LstmTransducer
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.tapped_net import TappedNet
    from artifacts.speech.streaming_rnnt import transcribe

    for folder in (encoder, joint):
        run_isolated(*find_net(folder), [])
    tapped = {"encoder": TappedNet(*find_net(encoder)), "joint": TappedNet(*find_net(joint))}
    nets = (tapped["encoder"], open_net(*find_net(predictor)), tapped["joint"])
    networks = LstmTransducer(encoder, predictor, joint, nets=nets)

    def hear(waveform: npt.NDArray[np.float32]) -> int:
        return len(transcribe(networks, waveform))

    return hear, tapped

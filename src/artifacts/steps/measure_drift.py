"""Measure how far an ONNX model's outputs differ from a reference's, on real speech.

Two encoders get the features of the corpus. Two decoder_joint models get the inputs of the reference's own greedy
decoding: the frames of `encoder`, and the tokens and states along its path. The inputs are never noise: an encoder has
shown a correlation of 0.71 on noise and 0.97 on speech, and a collapsed encoder has passed on noise.

Writes `metrics.json` for each output, in total and for each slice. It has the largest and the mean absolute difference,
the smallest cosine of an utterance, and the number of values that are not finite. Each of those values counts as a
difference of the largest float32 (3.40282e+38), and the cosine of its utterance as 0.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from artifacts.speech.corpus import Corpus, Utterance
    from artifacts.speech.drift import DriftTable
    from artifacts.speech.frontend import Preprocessor

TOOLS = ("onnxruntime", "numpy", "soundfile")

DEPENDS_ON_PROCESSOR = True
HEADLINE = ("cosine_min_encoder_output", "max_abs_encoder_output", "steps_with_other_choice")

log = logging.getLogger(__name__)


class Params(StepParams):
    """The part of the corpus, and the number of threads."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """Slices of the corpus to measure on; all of them by default."""
    utterances_per_slice: int = Field(2, gt=0)
    """Utterances of each slice, evenly spread over it."""
    threads: int = Field(1, gt=0, le=64)
    """Threads within an operator. They may decide the last bits of a sum, so they are part of the measurement."""


def run(
    out: Path,
    params: Params,
    *,
    model: Path,
    reference: Path,
    preprocessor: Path,
    corpus: Path,
    encoder: Path | None = None,
    model_meta: Path | None = None,
) -> dict[str, float | int | str]:
    """Compare two encoders, or two decoder_joint models, which need `encoder` and `model_meta` too.

    Raises StepError if the two have different inputs or outputs, if they are other models, and for an invalid corpus.
    """
    from artifacts.graph.model_file import find_model
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.drift import DriftTable
    from artifacts.speech.frontend import Preprocessor

    models = (find_model(model), find_model(reference))
    inputs = _common_inputs(*models)
    speech = read_corpus(corpus, params.slices)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    table = DriftTable()
    if "audio_signal" in inputs:
        counts = _compare_encoders(models, speech, preprocess, params, table)
    elif "targets" in inputs:
        if encoder is None or model_meta is None:
            raise StepError(
                "a decoder_joint is measured on the frames of an encoder, along the reference's greedy path",
                "give the inputs encoder and model_meta as well",
            )
        meta = model_meta / "model_meta.json"
        counts = _compare_decoders(models, find_model(encoder), meta, speech, preprocess, params, table)
    else:
        raise StepError(
            f"{models[0].name}: has the inputs {', '.join(sorted(inputs))}, is neither an encoder nor a decoder_joint",
            "give two encoders, or two decoder_joint models",
        )

    outputs = {name: drift.record() for name, drift in table.total.items()}
    slices = {
        name: {output: drift.record() for output, drift in table.slices[name].items()} for name in sorted(table.slices)
    }
    metrics = {**counts, "outputs": outputs, "slices": slices}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    flat: dict[str, float | int | str] = dict(counts)
    for output in outputs:
        flat |= {f"max_abs_{output}": outputs[output]["max_abs"], f"cosine_min_{output}": outputs[output]["cosine_min"]}
    flat["nonfinite_values"] = sum(drift.nonfinite_values for drift in table.total.values())
    return flat


def _common_inputs(model: Path, reference: Path) -> set[str]:
    """Return the names of both models' inputs. Raises StepError unless inputs and outputs agree in name and type."""
    from artifacts.graph.model_file import load_graph

    interfaces = []
    for path in (model, reference):
        graph = load_graph(path).graph
        initializers = {tensor.name for tensor in graph.initializer}
        interfaces.append(
            [
                {value.name: value.type.tensor_type.elem_type for value in values if value.name not in initializers}
                for values in (graph.input, graph.output)
            ]
        )
    if interfaces[0] != interfaces[1]:
        raise StepError(
            f"{model.name}: has other inputs or outputs than the reference {reference.name}",
            "compare two builds of one model; keep the types of their inputs and outputs",
        )
    return set(interfaces[0][0])


def _compare_encoders(
    models: tuple[Path, Path], speech: Corpus, preprocess: Preprocessor, params: Params, table: DriftTable
) -> dict[str, int]:
    chosen = speech.evenly_spread(params.utterances_per_slice)
    # First all outputs of the reference, then those of the model: outputs need less memory than a second encoder.
    references = list(_encode(models[1], "the reference", chosen, speech, preprocess, params.threads))
    outputs = _encode(models[0], "the model", chosen, speech, preprocess, params.threads)
    with_other_lengths = 0
    for utterance, (ours, our_length), (theirs, their_length) in zip(chosen, outputs, references, strict=True):
        with_other_lengths += int(our_length != their_length or ours.shape != theirs.shape)
        common = min(ours.shape[1], theirs.shape[1])
        if len(ours) != len(theirs):
            raise StepError(
                f"{models[0].name}: gives frames of {len(ours)} numbers, the reference of {len(theirs)}",
                "compare two builds of one model",
            )
        table.begin(utterance.slice)
        table.add("encoder_output", ours[:, :common], theirs[:, :common])
        table.end()
    return {"utterances": len(chosen), "utterances_with_other_lengths": with_other_lengths}


def _encode(
    model: Path, name: str, chosen: Sequence[Utterance], speech: Corpus, preprocess: Preprocessor, threads: int
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield the encoder output `[D, T']` and its length for each utterance."""
    from artifacts.speech.frontend import OnnxEncoder
    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

    encoder = OnnxEncoder(model, threads)
    for done, utterance in enumerate(chosen, start=1):
        waveform = speech.waveform(utterance)
        with bounded_memory(bytes_for_speech(utterance.duration), f"{name} on utterance '{utterance.id}'"):
            output, length = encoder.encode(*preprocess.features(waveform))
        yield output[0].copy(), int(length[0])  # a copy, because the array itself keeps the session's memory
        log.info("encoding with %s", name, extra={"done": done, "total": len(chosen)})


def _compare_decoders(
    models: tuple[Path, Path],
    encoder: Path,
    meta: Path,
    speech: Corpus,
    preprocess: Preprocessor,
    params: Params,
    table: DriftTable,
) -> dict[str, int]:
    from artifacts.speech.decoding import read_decoding
    from artifacts.speech.drift import LockstepTransducer
    from artifacts.speech.frontend import OnnxEncoder
    from artifacts.speech.greedy import decode
    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

    decoding = read_decoding(meta)
    encode = OnnxEncoder(encoder, params.threads)
    both = LockstepTransducer(*models, params.threads, decoding, table)
    chosen = speech.evenly_spread(params.utterances_per_slice)
    for done, utterance in enumerate(chosen, start=1):
        waveform = speech.waveform(utterance)
        with bounded_memory(bytes_for_speech(utterance.duration), f"utterance '{utterance.id}'"):
            frames = encode.frames(*preprocess.features(waveform))
            table.begin(utterance.slice)
            decode(both, frames, decoding)
            table.end()
        log.info("comparing decoders", extra={"done": done, "total": len(chosen)})
    return {
        "utterances": len(chosen),
        "steps": both.steps,
        "steps_with_other_choice": both.steps_with_other_choice,
    }

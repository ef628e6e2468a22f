"""Measure how far a model's outputs drift from a reference's, on real speech.

For an encoder both are given the features of the corpus. For a decoder_joint both are given what the reference meets
when it decodes the corpus greedily: the frames of `encoder`, and the tokens and states of its own path. Never noise:
an encoder has shown a correlation of 0.71 on noise where speech shows 0.97, and a collapsed one has passed on it.

Writes `metrics.json`: for each output, in total and for each slice, the largest and the mean absolute difference, the
smallest cosine of an utterance, and how many values are not finite. Each of those counts as off by the largest float32
(3.40282e+38), and the cosine of its utterance as 0.
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

log = logging.getLogger(__name__)


class Params(StepParams):
    """What of the corpus is compared, and with how many threads."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """The slices to measure on; all of the corpus unless given."""
    utterances_per_slice: int = Field(4, gt=0)
    """Spread evenly over each slice."""
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
    """Compare two encoders, or two decoder_joint models; those need `encoder` and `model_meta` as well.

    Raises StepError if the two have not the same inputs and outputs, or are neither of these, and for whatever is
    wrong with the corpus.
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
            "measure the drift of one of those",
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
    """The names of both models' inputs. Raises StepError unless inputs and outputs agree in name and type."""
    from artifacts.graph.model_file import load_graph

    faces = []
    for path in (model, reference):
        graph = load_graph(path).graph
        initializers = {tensor.name for tensor in graph.initializer}
        faces.append(
            [
                {value.name: value.type.tensor_type.elem_type for value in values if value.name not in initializers}
                for values in (graph.input, graph.output)
            ]
        )
    if faces[0] != faces[1]:
        raise StepError(
            f"{model.name}: has other inputs or outputs than the reference {reference.name}",
            "compare two builds of one model; keep the types of their inputs and outputs",
        )
    return set(faces[0][0])


def _compare_encoders(
    models: tuple[Path, Path], speech: Corpus, preprocess: Preprocessor, params: Params, table: DriftTable
) -> dict[str, int]:
    chosen = speech.spread(params.utterances_per_slice)
    # All of the reference's outputs, then all of the model's: what is kept is small beside a second encoder in memory.
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
    """Each utterance's encoder output `[D, T']` and its length."""
    from artifacts.speech.frontend import Encoder
    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

    encoder = Encoder(model, threads)
    for done, utterance in enumerate(chosen, start=1):
        waveform = speech.waveform(utterance)
        with bounded_memory(bytes_for_speech(utterance.duration), f"{name} on utterance '{utterance.id}'"):
            output, length = encoder.encode(*preprocess.features(waveform))
        yield output[0].copy(), int(length[0])  # the array as it comes keeps the session's memory with it
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
    from artifacts.speech.frontend import Encoder
    from artifacts.speech.greedy import decode
    from artifacts.speech.side_by_side import SideBySide
    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

    decoding = read_decoding(meta)
    encode = Encoder(encoder, params.threads)
    both = SideBySide(*models, params.threads, decoding, table)
    chosen = speech.spread(params.utterances_per_slice)
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

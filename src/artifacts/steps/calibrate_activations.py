"""Collect per-channel activation statistics of an encoder on a calibration corpus.

For each activation that a MatMul multiplies by a weight: the exact range of each channel, percentiles of the
magnitudes, and a sample of its rows. They decide SmoothQuant's scales and the ranges of static quantisation.

The encoder runs once on each recording of the corpus, short or long, as consumers run it. Observers, which are nodes
added to the graph, measure there, so that the activations (gigabytes for a recording of minutes) never leave it. The
memory does not grow with the number of recordings or their lengths.

The step writes `statistics.json` and `statistics.npz`, see `artifacts.graph.quantization.activation_statistics`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime
    from numpy.typing import NDArray

    from artifacts.graph.quantization.activation_statistics import ActivationStatistics
    from artifacts.graph.quantization.observers import Observer, RunningStatistics

TOOLS = ("numpy", "onnxruntime", "soundfile")

DEPENDS_ON_PROCESSOR = True
HEADLINE = ("recordings", "seconds", "outlier_ratio_max")

OUTPUTS = ("encoder_output", "encoded_lengths")

log = logging.getLogger(__name__)


class Params(StepParams):
    """The recordings to run, and the size of the samples."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """The slices of the corpus to use; None: all."""
    min_seconds: float = Field(60.0, ge=0)
    """The least speech of a corpus: the ranges of a smaller one would be those of a few words."""
    long_seconds: float | None = Field(120.0, gt=0, le=300)
    """If no recording is this long, consecutive recordings are also joined to windows of this length. None: never."""
    long_windows: int = Field(4, gt=0)
    """The most windows that are joined, evenly spread over the corpus."""
    percentile: float = Field(99.99, gt=50, le=100)
    """Of the magnitudes, for each channel and for all channels of a value together."""
    rows_per_value: int = Field(128, gt=0, le=4096)
    """Rows kept of each value, evenly spread over the recordings' time: 1.2 MB a value at 0.6 billion parameters."""
    rows_per_recording: int = Field(64, gt=0, le=4096)
    """The most rows of a recording that are counted for the percentiles, evenly spread."""
    row_step: int = Field(2, gt=0)
    """At most one row in this many is counted."""
    threads: int = Field(1, gt=0, le=64)
    """Threads within an operator. They may change the last bits of a sum, so they are part of the measurement."""


def run(out: Path, params: Params, *, model: Path, preprocessor: Path, corpus: Path) -> dict[str, float | int | str]:
    """Write the statistics of the encoder `model` on the corpus to `out`.

    Metrics: values measured, recordings run (with joined windows), their seconds and encoder frames, and a digest of
    the waveforms in their order. Also the largest ratio of a channel's largest magnitude to the median channel's: where
    it is large, one scale for all channels is coarse for most.

    Raises StepError for a model that is not a float32 encoder, is quantised already or has no MatMul by a weight; for
    a corpus that is empty, too short or malformed; and for features or activations that are not finite.
    """
    from tempfile import TemporaryDirectory

    from artifacts.graph.model_file import find_model
    from artifacts.graph.quantization.activation_statistics import MODEL_KEY, digest_model, write_statistics
    from artifacts.graph.quantization.observers import RunningStatistics
    from artifacts.runtime.sessions import open_session, require_values
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.frontend import Preprocessor
    from artifacts.speech.recordings import SpeechDigest, recordings, shares
    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

    speech = read_corpus(corpus, params.slices)
    seconds = sum(one.duration for one in speech.utterances)
    if seconds < params.min_seconds:
        raise StepError(
            f"{corpus.name}: has {seconds:.1f} s of speech, needs {params.min_seconds:g} s",
            "give a corpus with more speech, or more of its slices",
        )
    chosen = recordings(speech.utterances, params.long_seconds, params.long_windows)
    quotas = shares(chosen, params.rows_per_value)
    source = find_model(model)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    digest = SpeechDigest()
    frames = 0
    with TemporaryDirectory(dir=out) as scratch:
        observed = Path(scratch) / source.name
        observers = _write_observed(source, observed, max(params.rows_per_recording, *quotas), params.row_step)
        session = open_session(observed, params.threads)
        require_values(session, source, ("audio_signal", "length"), OUTPUTS)
        running = [RunningStatistics(one.value, one.channels, params.rows_per_value) for one in observers]
        for done, (recording, quota) in enumerate(zip(chosen, quotas, strict=True), start=1):
            waveform = recording.waveform(speech)
            digest.add(waveform)
            label = f"{corpus.name}: {recording.name}"
            with bounded_memory(bytes_for_speech(recording.seconds), label):
                features, lengths = preprocess.features(waveform)
                _check_finite(
                    features,
                    f"{label}: features",
                    "remove it from the corpus, or record the clip again at a usual level",
                )
                feeds: dict[str, NDArray[Any]] = {"audio_signal": features, "length": lengths}
                frames += _run(session, feeds, observers, running, quota, (source.name, label))
            log.info("calibrating", extra={"done": done, "total": len(chosen)})
        del session  # frees the memory of the weights

    metrics: dict[str, float | int | str] = {
        "values": len(observers),
        "recordings": len(chosen),
        "joined_windows": len(chosen) - len(speech.utterances),
        "seconds": round(sum(recording.seconds for recording in chosen), 3),
        "longest_seconds": round(max(recording.seconds for recording in chosen), 3),
        "frames": frames,
        "speech_sha256": digest.hexdigest(),
    }
    largest = _OutlierRatio()
    statistics = (largest.add(one.result(params.percentile)) for one in running)
    measured = metrics | {"percentile": params.percentile, MODEL_KEY: digest_model(source)}
    write_statistics(out, statistics, measured)
    return metrics | {"outlier_ratio_max": largest.ratio, "outlier_ratio_value": largest.value}


def _write_observed(source: Path, target: Path, most_rows: int, row_step: int) -> list[Observer]:
    """Write the model with an observer at each activation that a MatMul multiplies by a weight."""
    from artifacts.graph.model_file import errors_of, save_graph
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.observers import add_observers
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers, weight_matmuls

    _, model = open_float_model(source)
    matrices_to_initializers(model)
    channels = {matmul.activation: matmul.sizes[0] for matmul in weight_matmuls(model)}
    if not channels:
        raise StepError(f"{source.name}: 0 MatMuls by a weight", "give an encoder whose MatMuls have constant weights")
    with errors_of(source):
        observers = add_observers(model, channels.items(), most_rows=most_rows, row_step=row_step)
    save_graph(model, target, source_folder=source.parent)
    return observers


def _run(
    session: onnxruntime.InferenceSession,
    feeds: dict[str, NDArray[Any]],
    observers: Sequence[Observer],
    running: Sequence[RunningStatistics],
    quota: int,
    labels: tuple[str, str],
) -> int:
    """Run the observed model on one recording, and add the observers' outputs. Return the number of encoder frames.

    Raises StepError, with the `labels` of model and recording, if it does not run or a number is not finite.
    """
    from artifacts.runtime.sessions import runtime_errors

    model, recording = labels
    wanted = [*OUTPUTS, *(output for observer in observers for output in observer.outputs)]
    with runtime_errors(
        f"{model}: fails on {recording}",
        "remove recordings that are longer than the model's table of positions (usually 400 s)",
    ):
        encoder_output, encoded_lengths, *measured = session.run(wanted, feeds)
    if encoded_lengths.size < 1:
        raise StepError(f"{model}: gives no length for {recording}", "give the fp32 encoder")
    fix = "remove the recording from the corpus, or repair the model"
    for index, (observer, one) in enumerate(zip(observers, running, strict=True)):
        low, high, frames, rows = measured[4 * index : 4 * index + 4]
        for numbers in (low, high, rows):
            _check_finite(numbers, f"{recording}: activation '{observer.value}'", fix)
        one.add(low, high, int(frames[0]), rows, keep=quota)
    _check_finite(encoder_output, f"{recording}: encoder_output", fix)  # shows a NaN that observers missed
    return int(encoded_lengths[0])


def _check_finite(numbers: NDArray[Any], what: str, fix: str) -> None:
    import numpy as np

    if not np.isfinite(numbers).all():
        raise StepError(f"{what}: NaN or infinity", fix)


class _OutlierRatio:
    """The largest ratio of a value's largest channel to its median channel, by their largest magnitudes."""

    def __init__(self) -> None:
        self.ratio = 0.0
        self.value = ""

    def add(self, one: ActivationStatistics) -> ActivationStatistics:
        import numpy as np

        median = float(np.median(one.abs_max))
        ratio = round(float(one.abs_max.max()) / median, 2) if median else 0.0
        if ratio > self.ratio:
            self.ratio, self.value = ratio, one.value
        return one

"""Measure what an encoder's weights are multiplied with, channel by channel, on real speech.

For each activation that a MatMul with a weight reads: the exact range of each channel, percentiles of the magnitudes,
and a sample of its rows. SmoothQuant's scales and static quantisation's ranges are made from these.

The corpus is heard once, one recording at a time and each in one piece, as consumers run them, short and long. Nodes
that are added to the graph do the measuring, so that the activations (gigabytes for a recording of minutes) never leave
it; what is kept does not grow with the number of recordings or their lengths.

Writes `statistics.json` and `statistics.npz`, see `artifacts.graph.quantization.activation_statistics`.
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
    from artifacts.graph.quantization.activation_taps import Tap
    from artifacts.graph.quantization.running_statistics import RunningStatistics

TOOLS = ("numpy", "onnxruntime", "soundfile")

DEPENDS_ON_PROCESSOR = True

OUTPUTS = ("encoder_output", "encoded_lengths")

log = logging.getLogger(__name__)


class Params(StepParams):
    """What is heard and how much of it is kept."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """The slices to hear; all of the corpus unless given."""
    min_seconds: float = Field(60.0, ge=0)
    """A corpus of less speech is refused: its ranges would be those of a few words."""
    long_seconds: float | None = Field(120.0, gt=0, le=300)
    """If no recording is this long, consecutive ones are joined to windows that are, in addition. None: never."""
    long_windows: int = Field(4, gt=0)
    """At most this many are joined, evenly spread over the corpus."""
    percentile: float = Field(99.99, gt=50, le=100)
    """Of the magnitudes, for each channel and for all channels of a value together."""
    rows_per_value: int = Field(128, gt=0, le=4096)
    """Rows kept of each value, evenly spread over the time of the recordings: at 0.6 billion parameters 1.2 MB each."""
    rows_per_recording: int = Field(64, gt=0, le=4096)
    """At most this many rows of a recording are counted for the percentiles, evenly spread."""
    row_step: int = Field(2, gt=0)
    """And at most one in this many."""
    threads: int = Field(1, gt=0, le=64)
    """Threads within an operator. They may decide the last bits of a sum, so they are part of the measurement."""


def run(out: Path, params: Params, *, model: Path, preprocessor: Path, corpus: Path) -> dict[str, float | int | str]:
    """Write the statistics of the encoder `model` on the corpus to `out`.

    Metrics: values measured, recordings heard (joined windows among them), their seconds and encoder frames, the
    largest ratio of a channel's largest magnitude to the median channel's (where it is large, one scale for all
    channels is coarse for most), and a digest of the waveforms in their order.

    Raises StepError for a model that is not a float32 encoder, is quantised already or has no MatMul with a weight; for
    a corpus that is empty, too short or not as it must be; and for features or activations that are not finite.
    """
    from tempfile import TemporaryDirectory

    from artifacts.graph.model_file import find_model
    from artifacts.graph.quantization.activation_statistics import MODEL_KEY, digest_model, write_statistics
    from artifacts.graph.quantization.running_statistics import RunningStatistics
    from artifacts.runtime.sessions import open_session, require_values
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.frontend import Preprocessor
    from artifacts.speech.recordings import SpeechDigest, recordings, shares
    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

    speech = read_corpus(corpus, params.slices)
    seconds = sum(one.duration for one in speech.utterances)
    if seconds < params.min_seconds:
        raise StepError(
            f"{corpus.name}: holds {seconds:.1f} s of speech, needs {params.min_seconds:g} s",
            "give a corpus with more speech, or more of its slices",
        )
    heard = recordings(speech.utterances, params.long_seconds, params.long_windows)
    quotas = shares(heard, params.rows_per_value)
    source = find_model(model)
    preprocess = Preprocessor(find_model(preprocessor), params.threads)
    digest = SpeechDigest()
    frames = 0
    with TemporaryDirectory(dir=out) as scratch:
        tapped = Path(scratch) / source.name
        taps = _write_tapped(source, tapped, max(params.rows_per_recording, *quotas), params.row_step)
        session = open_session(tapped, params.threads)
        require_values(session, source, ("audio_signal", "length"), OUTPUTS)
        running = [RunningStatistics(tap.value, tap.channels, params.rows_per_value) for tap in taps]
        for done, (recording, quota) in enumerate(zip(heard, quotas, strict=True), start=1):
            waveform = recording.waveform(speech)
            digest.add(waveform)
            place = f"{corpus.name}: {recording.name}"
            with bounded_memory(bytes_for_speech(recording.seconds), place):
                features, lengths = preprocess.features(waveform)
                _check_finite(
                    features,
                    f"{place}: features",
                    "leave it out of the corpus, or make the clip again at a usual level",
                )
                feeds: dict[str, NDArray[Any]] = {"audio_signal": features, "length": lengths}
                frames += _hear(session, feeds, taps, running, quota, (source.name, place))
            log.info("calibrating", extra={"done": done, "total": len(heard)})
        del session  # the weights' memory

    metrics: dict[str, float | int | str] = {
        "values": len(taps),
        "recordings": len(heard),
        "joined_windows": len(heard) - len(speech.utterances),
        "seconds": round(sum(recording.seconds for recording in heard), 3),
        "longest_seconds": round(max(recording.seconds for recording in heard), 3),
        "frames": frames,
        "speech_sha256": digest.hexdigest(),
    }
    largest = _OutlierRatio()
    statistics = (largest.see(one.result(params.percentile)) for one in running)
    measured = metrics | {"percentile": params.percentile, MODEL_KEY: digest_model(source)}
    write_statistics(out, statistics, measured)
    return metrics | {"outlier_ratio_max": largest.ratio, "outlier_ratio_value": largest.value}


def _write_tapped(source: Path, target: Path, most_rows: int, row_step: int) -> list[Tap]:
    """Write the model with taps at every distinct activation that a MatMul multiplies with a weight."""
    from artifacts.graph.model_file import load_graph, save_graph
    from artifacts.graph.quantization.activation_taps import add_taps
    from artifacts.graph.quantization.quantizer_input import check_float_model
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers, weight_matmuls

    model = load_graph(source)
    check_float_model(model, source.name)
    matrices_to_initializers(model)
    channels = {matmul.activation: matmul.sizes[0] for matmul in weight_matmuls(model)}
    if not channels:
        raise StepError(
            f"{source.name}: 0 MatMuls with a weight", "give an encoder whose MatMuls have constant weights"
        )
    try:
        taps = add_taps(model, channels.items(), most_rows=most_rows, row_step=row_step)
    except StepError as error:
        raise StepError(f"{source.name}: {error.fact}", error.fix) from None
    save_graph(model, target, source_folder=source.parent)
    return taps


def _hear(
    session: onnxruntime.InferenceSession,
    feeds: dict[str, NDArray[Any]],
    taps: Sequence[Tap],
    running: Sequence[RunningStatistics],
    quota: int,
    names: tuple[str, str],
) -> int:
    """Run the tapped model on one recording and add what it measures; returns the encoder's number of frames.

    Raises StepError, with the `names` of model and recording, if it does not run or anything is not finite.
    """
    from artifacts.runtime.sessions import runtime_errors

    model, place = names
    wanted = [*OUTPUTS, *(output for tap in taps for output in tap.outputs)]
    with runtime_errors(
        f"{model}: fails on {place}",
        "leave recordings out that are longer than the model's table of positions (usually 400 s)",
    ):
        encoder_output, encoded_lengths, *measured = session.run(wanted, feeds)
    if encoded_lengths.size < 1:
        raise StepError(f"{model}: gives no length for {place}", "give the fp32 encoder")
    fix = "leave the recording out of the corpus, or mend the model"
    for index, (tap, one) in enumerate(zip(taps, running, strict=True)):
        low, high, frames, rows = measured[4 * index : 4 * index + 4]
        for numbers in (low, high, rows):
            _check_finite(numbers, f"{place}: activation '{tap.value}'", fix)
        one.add(low, high, int(frames[0]), rows, keep=quota)
    _check_finite(encoder_output, f"{place}: encoder_output", fix)  # where a NaN shows that hid from the taps
    return int(encoded_lengths[0])


def _check_finite(numbers: NDArray[Any], what: str, fix: str) -> None:
    import numpy as np

    if not np.isfinite(numbers).all():
        raise StepError(f"{what}: NaN or infinity", fix)


class _OutlierRatio:
    """Over values: the largest ratio of a value's largest channel to its median one, by their largest magnitudes."""

    def __init__(self) -> None:
        self.ratio = 0.0
        self.value = ""

    def see(self, one: ActivationStatistics) -> ActivationStatistics:
        import numpy as np

        median = float(np.median(one.abs_max))
        ratio = round(float(one.abs_max.max()) / median, 2) if median else 0.0
        if ratio > self.ratio:
            self.ratio, self.value = ratio, one.value
        return one

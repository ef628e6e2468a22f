"""Calibrate an LSTM transducer for ncnn int8: tables of scales from speech, streamed as in sherpa-ncnn.

The corpus is transcribed twice. The first pass finds the largest magnitude of each input of a convolution or
InnerProduct. The second pass counts the magnitudes in 2048 bins, from which the threshold with the smallest
Kullback-Leibler divergence is chosen (`artifacts.ncnn.calibration`). Memory does not grow with the corpus. The scales
of weights need no speech.

Each utterance is streamed, with sherpa-ncnn's features and half a second of silence appended, and decoded greedily: the
inputs of the joint depend on the tokens. `calibrate_ncnn` does the same for a FastConformer-TDT.

Writes `encoder.table` and `joint.table`, in the format of `generate-int8-scale-table`. Gemm layers get no scales: run
`rewrite_ncnn_linears` first to calibrate linear layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.ncnn.calibration_params import CalibrationParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TOOLS = ("kaldi-native-fbank", "ncnn", "numpy", "soundfile")

DEPENDS_ON_PROCESSOR = True
HEADLINE = ("encoder_layers", "joint_layers", "seconds")


class Params(CalibrationParams):
    """The speech, and how scales are chosen."""


def run(
    out: Path, params: Params, *, encoder: Path, predictor: Path, joint: Path, corpus: Path
) -> dict[str, float | int | str]:
    """Write the tables of `encoder` and `joint`, which have float weights, from the speech in `corpus`.

    Metrics: layers in the tables, utterances, their seconds, tokens decoded, and a digest of the waveforms.
    Raises StepError for other networks, networks without a layer for a table, and activations that are not finite.
    Raises it for a corpus that is invalid, too short, or changes during calibration.
    """
    from artifacts.ncnn.calibration import (
        ObservedNet,
        begin_second_pass,
        require_calibrated_layers,
        write_tables,
    )
    from artifacts.ncnn.lstm_transducer import NcnnLstmTransducer
    from artifacts.ncnn.param_file import find_net
    from artifacts.ncnn.runtime import open_net, run_isolated
    from artifacts.speech.recordings import read_calibration_corpus, transcribe_twice
    from artifacts.speech.sherpa_streaming import transcribe

    speech = read_calibration_corpus(corpus, params.slices, params.min_seconds)
    for folder in (encoder, joint):
        run_isolated(*find_net(folder), [])
    nets = {"encoder": ObservedNet(*find_net(encoder)), "joint": ObservedNet(*find_net(joint))}
    opened = (nets["encoder"], open_net(*find_net(predictor)), nets["joint"])
    networks = NcnnLstmTransducer(encoder, predictor, joint, nets=opened)
    require_calibrated_layers(nets, (encoder, joint))

    def count_tokens(waveform: npt.NDArray[np.float32]) -> int:
        return len(transcribe(networks, waveform))

    metrics = transcribe_twice(speech, count_tokens, lambda: begin_second_pass(nets))
    return {**write_tables(nets, params.activations, out), **metrics}

"""The ONNX graph that turns waveforms into features, as NeMo's AudioToMelSpectrogramPreprocessor does in evaluation.

The Fourier transform is a pair of convolutions with windowed cosines and sines. They run on WebGPU, where ONNX's STFT
operator does not; on a CPU they take two thirds of its time and are as exact. The price is a file of 1 MB instead of
140 KB.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifacts.nemo.feature_settings import FeatureSettings

STD_GUARD = 1e-5
"""NeMo adds this to each standard deviation (CONSTANT in its features.py)."""

IR_VERSION = 8
"""The oldest that goes with opset 17: newer ones shut out older runtimes."""


class _Nodes:
    """Nodes in order, each named after its one output, and the constants that they use."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, output: str, operator: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def floats(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def ints(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name


def build_features_graph(settings: FeatureSettings, opset: int) -> ModelProto:
    """`waveforms` [batch, samples] f32 in -1..1, `waveforms_lens` [batch] i64 → `features` [batch, features, frames]
    f32, `features_lens` [batch] i64. There are samples // hop + 1 frames, of which waveforms_lens // hop are valid.
    """
    nodes = _Nodes()
    nodes.add("features_lens", "Div", "waveforms_lens", nodes.ints("hop_samples", settings.hop_samples))
    signal = "waveforms" if settings.preemphasis is None else _preemphasis(nodes, settings.preemphasis)
    power = _spectrum(nodes, signal, settings)
    mel = nodes.add("mel", "MatMul", nodes.floats("filterbank", settings.filterbank), power)
    guarded = nodes.add("guarded_mel", "Add", mel, nodes.floats("log_add", settings.log_add))
    log_mel = nodes.add("log_mel", "Log", guarded)
    valid = _within_lengths(nodes, "frame", log_mel, 2, "features_lens")
    valid = nodes.add("valid_frames", "Unsqueeze", valid, nodes.ints("features_axis", [1]))
    values = _normalized(nodes, log_mel, valid) if settings.normalize_per_feature else log_mel
    nodes.add("features", "Where", valid, values, nodes.floats("pad_value", settings.pad_value))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes.nodes,
        "preprocessor",
        [
            info("waveforms", TensorProto.FLOAT, ["batch", "samples"]),
            info("waveforms_lens", TensorProto.INT64, ["batch"]),
        ],
        [
            info("features", TensorProto.FLOAT, ["batch", len(settings.filterbank), "frames"]),
            info("features_lens", TensorProto.INT64, ["batch"]),
        ],
        nodes.constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION, producer_name="artifacts"
    )


def _within_lengths(nodes: _Nodes, what: str, values: str, axis: int, lengths: str) -> str:
    """[batch, n] bool: true up to each row's length, where n is the size of the axis of `values`."""
    shape = nodes.add(f"{what}_shape", "Shape", values)
    count = nodes.add(f"{what}_count", "Gather", shape, nodes.ints(f"{what}_axis", axis))
    start, step = nodes.ints(f"{what}_start", 0), nodes.ints(f"{what}_step", 1)
    positions = nodes.add(f"{what}_positions", "Range", start, count, step)
    limits = nodes.add(f"{what}_limits", "Unsqueeze", lengths, nodes.ints(f"{what}_limits_axis", [1]))
    return nodes.add(f"is_{what}", "Less", positions, limits)


def _preemphasis(nodes: _Nodes, factor: float) -> str:
    """x[n] - factor * x[n - 1], with x[-1] = 0, and zeros beyond each row's length."""
    begin, end, axis = nodes.ints("shift_begin", [0]), nodes.ints("shift_end", [-1]), nodes.ints("shift_axis", [1])
    padded = nodes.add("padded", "Pad", "waveforms", nodes.ints("one_before", [0, 1, 0, 0]))
    previous = nodes.add("previous", "Slice", padded, begin, end, axis)
    scaled = nodes.add("scaled_previous", "Mul", previous, nodes.floats("preemphasis", factor))
    sharpened = nodes.add("preemphasized", "Sub", "waveforms", scaled)
    valid = _within_lengths(nodes, "sample", "waveforms", 1, "waveforms_lens")
    return nodes.add("signal", "Where", valid, sharpened, nodes.floats("silence", 0))


def _spectrum(nodes: _Nodes, signal: str, settings: FeatureSettings) -> str:
    """[batch, fft_samples / 2 + 1, frames]: frames are centred on multiples of the hop, zeros surround the signal.

    The window stands in the middle of fft_samples; only its own samples are multiplied, and where the cosines and sines
    begin changes the phase only, which is dropped.
    """
    channel = nodes.add("channel", "Unsqueeze", signal, nodes.ints("channel_axis", [1]))
    size, period = len(settings.window), settings.fft_samples
    before = period // 2 - (period - size) // 2
    phases = np.outer(np.arange(period // 2 + 1), np.arange(size)) % period
    squares = []
    for part, wave in (("cosine", math.cos), ("sine", math.sin)):
        table = np.array([wave(2 * math.pi * i / period) for i in range(period)])
        kernels = nodes.floats(f"{part}_kernels", (table[phases] * settings.window)[:, np.newaxis])
        strides, pads = [settings.hop_samples], [before, size - before]
        values = nodes.add(part, "Conv", channel, kernels, kernel_shape=[size], strides=strides, pads=pads)
        squares.append(nodes.add(f"{part}_squared", "Mul", values, values))
    power = nodes.add("power", "Add", *squares)
    return power if settings.squared else nodes.add("magnitude", "Sqrt", power)


def _normalized(nodes: _Nodes, values: str, valid: str) -> str:
    """Each feature with mean 0 and (unbiased) standard deviation 1 over the valid frames of its row.

    The mean is taken away twice: runtimes add up plainly, and where a feature hardly moves, an error in the last place
    of the first sum is large against its deviation. Rows of less than two frames, where a deviation is undefined,
    become 0 as they do in NeMo.
    """
    zero, one, time = nodes.floats("zero", 0), nodes.floats("one", 1), nodes.ints("time_axis", [2])
    counted = nodes.add("counted", "Cast", "features_lens", to=TensorProto.FLOAT)
    column = nodes.add("counted_column", "Unsqueeze", counted, nodes.ints("row_axes", [1, 2]))
    count = nodes.add("count", "Max", column, one)
    degrees = nodes.add("degrees_of_freedom", "Max", nodes.add("one_less", "Sub", column, one), one)
    centred = values
    for turn in ("first", "second"):
        kept = nodes.add(f"{turn}_kept", "Where", valid, centred, zero)
        total = nodes.add(f"{turn}_total", "ReduceSum", kept, time, keepdims=1)
        mean = nodes.add(f"{turn}_mean", "Div", total, count)
        centred = nodes.add(f"{turn}_centred", "Sub", centred, mean)
    kept = nodes.add("kept", "Where", valid, centred, zero)
    squares = nodes.add("square_total", "ReduceSum", nodes.add("squares", "Mul", kept, kept), time, keepdims=1)
    deviation = nodes.add("deviation", "Sqrt", nodes.add("variance", "Div", squares, degrees))
    divisor = nodes.add("divisor", "Add", deviation, nodes.floats("std_guard", STD_GUARD))
    return nodes.add("normalized", "Div", centred, divisor)

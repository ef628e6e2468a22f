"""Observers of activations: nodes that measure them inside the graph, and the statistics that calibration accumulates.

A recording of minutes has gigabytes of activations, and calibration needs little of them. A value `[..., C]` is a
matrix with a row of C channels for each frame. Calibration needs the smallest and the largest number of each channel,
and some of the rows. Observers compute just that, so the activations never leave the graph. The other nodes compute
what they did before.

NaN may be missing from the smallest and the largest number: ONNX Runtime 1.31 compares, and NaN is neither less nor
more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.graph_lookup import opset_version
from artifacts.graph.quantization.activation_statistics import ActivationStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The names of the nodes and values that observers add begin with it.
PREFIX = "observer:"

# From this opset on, Shape can return a part of a shape.
FIRST_OPSET = 15
FIRST_OPSET_WITH_AXES_AS_INPUT = 18

# Magnitudes below 2^-20 are counted in the smallest bin, those of 2^16 and more in the largest.
MANTISSA_BITS = 2
SMALLEST_EXPONENT = -20
LARGEST_EXPONENT = 16
_SHIFT = 23 - MANTISSA_BITS
_FIRST = (127 + SMALLEST_EXPONENT) << MANTISSA_BITS
BINS = (LARGEST_EXPONENT - SMALLEST_EXPONENT) << MANTISSA_BITS


@dataclass(frozen=True)
class Observer:
    """A value that is measured, and the names of the outputs that one run of the model gives for it."""

    value: str
    channels: int
    # float32 `[C]`: the smallest and the largest number of each channel.
    low: str
    high: str
    # int64 `[1]`: the number of rows of the value.
    frames: str
    # float32 `[R, C]`: rows at even distances, from the first on.
    rows: str

    @property
    def outputs(self) -> tuple[str, str, str, str]:
        """The names of the four outputs."""
        return self.low, self.high, self.frames, self.rows


def add_observers(
    model: ModelProto, channels: Iterable[tuple[str, int]], *, most_rows: int, row_step: int
) -> list[Observer]:
    """Observe values of the top graph, given with their number of channels C, in place. The model keeps its outputs.

    Of N rows of a value, those at multiples of `row_step + N // most_rows` are outputs: fewer than one in `row_step` of
    a long value, at most `most_rows` of any value. Raises StepError for an opset below 15.

    Observers are behind all other nodes, those of the last value first. ONNX Runtime starts its default order at the
    last of the nodes without consumers, and puts before each node what it needs. So each value is measured as soon as
    it is computed, and freed as early as without observers. In the other order all values wait until the network is
    done: 1.9 GB more for two minutes at 0.6 billion parameters.
    """
    opset = opset_version(model)
    if opset < FIRST_OPSET:
        raise StepError(f"opset {opset}: observers need {FIRST_OPSET} or above", "export the model with a newer opset")
    for name, number in (("zero", 0), ("end", 2**62), ("most_rows", most_rows), ("row_step", row_step)):
        _add_integers(model, name, [number])
    observers = []
    nodes: list[list[NodeProto]] = []
    for index, (value, count) in enumerate(channels):
        name = f"{PREFIX}{index}"
        observer = Observer(value, count, *(f"{name}.{output}" for output in ("low", "high", "frames", "rows")))
        _add_integers(model, f"{index}.shape", [-1, count])
        nodes.append(list(_nodes(observer, name, opset)))
        model.graph.output.extend(_outputs(observer))
        observers.append(observer)
    for of_value in reversed(nodes):
        model.graph.node.extend(of_value)
    return observers


def _nodes(observer: Observer, name: str, opset: int) -> Iterator[NodeProto]:
    zero, end, most_rows, row_step = (f"{PREFIX}{number}" for number in ("zero", "end", "most_rows", "row_step"))
    matrix = f"{name}.matrix"
    # The output of a Reshape costs nothing: it shares the memory of its input.
    yield _node("Reshape", [observer.value, f"{name}.shape"], matrix)
    for op_type, output in (("ReduceMin", observer.low), ("ReduceMax", observer.high)):
        if opset < FIRST_OPSET_WITH_AXES_AS_INPUT:
            yield _node(op_type, [matrix], output, axes=[0], keepdims=0)
        else:
            yield _node(op_type, [matrix, zero], output, keepdims=0)
    yield _node("Shape", [matrix], observer.frames, start=0, end=1)
    yield _node("Div", [observer.frames, most_rows], f"{name}.quotient")
    yield _node("Add", [f"{name}.quotient", row_step], f"{name}.step")
    yield _node("Slice", [matrix, zero, end, zero, f"{name}.step"], observer.rows)


def _node(op_type: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs, [output], name=output, **attributes)


def _outputs(observer: Observer) -> Iterator[ValueInfoProto]:
    yield helper.make_tensor_value_info(observer.low, TensorProto.FLOAT, [observer.channels])
    yield helper.make_tensor_value_info(observer.high, TensorProto.FLOAT, [observer.channels])
    yield helper.make_tensor_value_info(observer.frames, TensorProto.INT64, [1])
    yield helper.make_tensor_value_info(observer.rows, TensorProto.FLOAT, [None, observer.channels])


def _add_integers(model: ModelProto, name: str, numbers: list[int]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), f"{PREFIX}{name}"))


class RunningStatistics:
    """Statistics of one value over a corpus. Their memory does not grow with the number of recordings.

    They are the exact range of each channel, a histogram of the magnitudes, and a sample of rows.
    """

    def __init__(self, value: str, channels: int, most_rows: int) -> None:
        self._value = value
        self._frames = 0
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)
        self._histogram = MagnitudeHistogram(channels)
        self._rows = np.empty((most_rows, channels), np.float32)
        self._kept = 0

    def add(
        self,
        low: NDArray[np.float32],
        high: NDArray[np.float32],
        frames: int,
        rows: NDArray[np.float32],
        *,
        keep: int,
    ) -> None:
        """Add an observer's outputs for one recording, all of them finite.

        `low [C]` and `high [C]` are over all `frames` of the recording. `rows [R, C]` are some of the frames, at even
        distances; each is counted as many times as the frames it represents. `keep` rows are kept: those in the middle
        of `keep` equal parts.
        """
        self._frames += frames
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        self._histogram.add(rows, weight=max(1, round(frames / len(rows))))
        count = min(keep, len(rows), len(self._rows) - self._kept)
        if count:
            chosen = (2 * np.arange(count) + 1) * len(rows) // (2 * count)
            self._rows[self._kept : self._kept + count] = rows[chosen]
            self._kept += count

    def result(self, percent: float) -> ActivationStatistics:
        """Return the statistics of all recordings, with this percentile of the magnitudes."""
        abs_max = np.maximum(np.abs(self._low), np.abs(self._high))
        return ActivationStatistics(
            value=self._value,
            frames=self._frames,
            low=self._low,
            high=self._high,
            percentile=self._histogram.percentiles(percent, abs_max),
            clip=self._histogram.percentile(percent, float(abs_max.max())),
            rows=self._rows[: self._kept],
        )


class MagnitudeHistogram:
    """Histogram of the magnitudes in each of C channels, for percentiles in memory that does not grow.

    A bin is a range of float32 bit patterns: the exponent and the first two bits of the mantissa. So a bin is 14 to
    25 % wide at any magnitude, and a shift finds a number's bin. (High dynamic range histograms work like this; Tene,
    HdrHistogram.)
    """

    def __init__(self, channels: int) -> None:
        # Bins are the outer axis: the memory of bins that no channel uses is never touched.
        self._counts = np.zeros((BINS, channels), np.uint32)
        self._channels = np.arange(channels, dtype=np.uint32)

    def add(self, rows: NDArray[np.float32], weight: int = 1) -> None:
        """Count the magnitudes of finite rows `[R, C]`, each `weight` times."""
        indices = np.abs(rows).view(np.uint32)
        indices >>= np.uint32(_SHIFT)
        np.clip(indices, np.uint32(_FIRST), np.uint32(_FIRST + BINS - 1), out=indices)
        indices -= np.uint32(_FIRST)
        indices *= np.uint32(len(self._channels))
        indices += self._channels
        np.add.at(self._counts.reshape(-1), indices.reshape(-1), np.uint32(weight))

    def percentiles(self, percent: float, abs_max: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the percentile of each channel `[C]`, at most its exact `abs_max [C]`, once rows were added.

        Magnitudes are taken as evenly spread within a bin. The bin is right, so the result is less than 25 % off.
        """
        return _percentiles(self._counts, percent, abs_max)

    def percentile(self, percent: float, abs_max: float) -> float:
        """Return the percentile of all channels together."""
        together = self._counts.sum(axis=1, keepdims=True, dtype=np.uint64)
        return float(_percentiles(together, percent, np.array([abs_max], np.float32))[0])


def _percentiles(
    counts: NDArray[np.uint32] | NDArray[np.uint64], percent: float, abs_max: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the percentiles of `counts [bins, C]`."""
    edges = (np.arange(_FIRST, _FIRST + BINS + 1, dtype=np.uint32) << np.uint32(_SHIFT)).view(np.float32)
    edges = edges.astype(np.float64)
    edges[0], edges[-1] = 0, np.inf  # the outer bins also contain what is beyond them
    below = np.cumsum(counts, axis=0, dtype=np.float64)
    wanted = below[-1] * (percent / 100)
    bins = np.argmax(below >= wanted, axis=0)
    columns = np.arange(counts.shape[1])
    inside = counts[bins, columns].astype(np.float64)
    part = 1 - (below[bins, columns] - wanted) / np.maximum(inside, 1)
    upper = np.minimum(edges[bins + 1], abs_max)
    found = edges[bins] + part * np.maximum(upper - edges[bins], 0)
    percentiles: NDArray[np.float32] = np.minimum(found, abs_max).astype(np.float32)
    return percentiles

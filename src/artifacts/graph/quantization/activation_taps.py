"""Nodes that measure activations inside the graph, so that the activations need not leave it.

A recording of minutes has gigabytes of activations, and what calibration wants of them is little: of a value
`[..., C]`, seen as rows of C channels, the smallest and the largest number of each channel and some of the rows. Taps
compute just that, beside the nodes that were there, which compute what they did before.

NaN may hide from the smallest and the largest number: ONNX Runtime 1.31 compares, and NaN is neither less nor more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from artifacts.errors import StepError

PREFIX = "tap:"
"""What the names of nodes and values begin with that taps add."""

FIRST_OPSET = 15
"""Where Shape gives part of a shape."""

FIRST_OPSET_WITH_AXES_AS_INPUT = 18


@dataclass(frozen=True)
class Tap:
    """A value that is measured, and what the model gives out for it in one run."""

    value: str
    channels: int
    low: str
    """float32 `[C]`: the smallest number of each channel."""
    high: str
    """float32 `[C]`: the largest."""
    frames: str
    """int64 `[1]`: how many rows the value has."""
    rows: str
    """float32 `[R, C]`: rows at even distances, from the first on."""

    @property
    def outputs(self) -> tuple[str, str, str, str]:
        """The names of the four outputs."""
        return self.low, self.high, self.frames, self.rows


def add_taps(model: ModelProto, channels: Iterable[tuple[str, int]], *, most_rows: int, row_step: int) -> list[Tap]:
    """Tap values of the top graph, given with their number of channels C, in place. The model keeps its outputs.

    Of N rows of a value those at multiples of `row_step + N // most_rows` are given out: fewer than one in `row_step`
    of a long value, at most `most_rows` of any. Needs opset 15.

    Taps stand behind all other nodes, those of the last value first. ONNX Runtime starts its default order at the last
    of the nodes that no other reads from, and puts before each what it needs: so each value is measured as soon as it
    is there, and freed as early as without taps. The other way round all values wait until the network is through:
    1.9 GB more for two minutes at 0.6 billion parameters.
    """
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < FIRST_OPSET:
        raise StepError(f"opset {opset}: taps need {FIRST_OPSET} or above", "export the model with a newer opset")
    for name, number in (("zero", 0), ("end", 2**62), ("most_rows", most_rows), ("row_step", row_step)):
        _add_integers(model, name, [number])
    taps = []
    nodes: list[list[NodeProto]] = []
    for place, (value, count) in enumerate(channels):
        name = f"{PREFIX}{place}"
        tap = Tap(value, count, *(f"{name}.{output}" for output in ("low", "high", "frames", "rows")))
        _add_integers(model, f"{place}.shape", [-1, count])
        nodes.append(list(_nodes(tap, name, opset)))
        model.graph.output.extend(_outputs(tap))
        taps.append(tap)
    for tapping in reversed(nodes):
        model.graph.node.extend(tapping)
    return taps


def _nodes(tap: Tap, name: str, opset: int) -> Iterator[NodeProto]:
    zero, end, most_rows, row_step = (f"{PREFIX}{number}" for number in ("zero", "end", "most_rows", "row_step"))
    matrix = f"{name}.matrix"
    # Reading a Reshape costs nothing: it shares the memory of what it reads.
    yield _node("Reshape", [tap.value, f"{name}.shape"], matrix)
    for op_type, output in (("ReduceMin", tap.low), ("ReduceMax", tap.high)):
        if opset < FIRST_OPSET_WITH_AXES_AS_INPUT:
            yield _node(op_type, [matrix], output, axes=[0], keepdims=0)
        else:
            yield _node(op_type, [matrix, zero], output, keepdims=0)
    yield _node("Shape", [matrix], tap.frames, start=0, end=1)
    yield _node("Div", [tap.frames, most_rows], f"{name}.quotient")
    yield _node("Add", [f"{name}.quotient", row_step], f"{name}.step")
    yield _node("Slice", [matrix, zero, end, zero, f"{name}.step"], tap.rows)


def _node(op_type: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs, [output], name=output, **attributes)


def _outputs(tap: Tap) -> Iterator[ValueInfoProto]:
    yield helper.make_tensor_value_info(tap.low, TensorProto.FLOAT, [tap.channels])
    yield helper.make_tensor_value_info(tap.high, TensorProto.FLOAT, [tap.channels])
    yield helper.make_tensor_value_info(tap.frames, TensorProto.INT64, [1])
    yield helper.make_tensor_value_info(tap.rows, TensorProto.FLOAT, [None, tap.channels])


def _add_integers(model: ModelProto, name: str, numbers: list[int]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), f"{PREFIX}{name}"))

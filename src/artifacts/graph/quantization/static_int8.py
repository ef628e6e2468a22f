"""MatMuls by constant weights rewritten to compute on 8-bit integers, with scales that are known beforehand.

Activations become uint8 with one scale and zero point, by one QuantizeLinear for all MatMuls that read a value; weights
are int8 with a scale for each column. What is added to a product, and whatever reads it, stays float: the products are
not requantised, which is what public files do and what is more exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.constants import drop_unread
from artifacts.graph.content import stored_content
from artifacts.graph.quantization.activation_statistics import StatisticsReader
from artifacts.graph.quantization.calibrated_matmuls import read_calibrated
from artifacts.graph.quantization.matrix_content import Int8Content
from artifacts.graph.quantization.quantized_error import (
    Span,
    Trial,
    activation_scale,
    column_scales,
    expected_errors,
    quantized_rows,
    relative_errors,
)
from artifacts.graph.quantization.significant_bits import rounded_outwards
from artifacts.graph.quantization.weight_matmuls import WeightMatMul

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OVERFLOW = "calibrate again, or train or export the checkpoint again"

Format = Literal["qdq", "qoperator"]

# Significant bits of the ends of an activation's range: the last bits of a measurement do not move them, and the range
# is 0.6 % wider on average.
RANGE_BITS = 7


@dataclass(frozen=True)
class StaticMatMul:
    """A MatMul to quantise, the range of its activation, and the scale `[N]` of each column of its weight."""

    matmul: WeightMatMul
    node_name: str
    low: float
    high: float
    weight_scales: NDArray[np.float32]
    error: float
    """||Q(X) Q(W) - XW||² / ||XW||² on the sample frames."""
    expected_error: float
    """Expected value of `error`; nodes are ranked by it."""


def measure_matmuls(
    readers: Sequence[WeightMatMul], statistics: StatisticsReader, folder: Path, limit: int, clipped: bool
) -> list[StaticMatMul]:
    """Scales and errors of the MatMuls that read one value. `clipped`: its range ends at the calibrated percentile.

    The ends of the range are rounded outwards to RANGE_BITS.
    Raises StepError for statistics of another model, and for a weight that holds NaN or would become all zeros.
    """
    measured, weights = read_calibrated(readers, statistics, folder)
    low, high = float(measured.low.min()), float(measured.high.max())
    if clipped and measured.clip > 0:  # it is 0 where next to all numbers are
        low, high = max(low, -measured.clip), min(high, measured.clip)
    low, high = rounded_outwards(low, RANGE_BITS), rounded_outwards(high, RANGE_BITS)
    trial = Trial(np.ones_like(measured.low), *quantized_rows(measured.rows, low, high))
    found = []
    for reader, weight in zip(readers, weights, strict=True):
        scales = column_scales(np.maximum(weight.max(axis=0), -weight.min(axis=0)), limit)
        if weight.any() and not (np.abs(weight) / scales >= 0.5).any():
            raise StepError(f"weight '{reader.weight.name}': quantised to zeros", "exclude the nodes that read it")
        (error,) = relative_errors(measured.rows, weight, [trial], limit)
        (expected,) = expected_errors(measured.rows, weight, [Span(trial.scale, low, high)], limit)
        name = reader.node.name or reader.node.output[0]
        if not (isfinite(error) and isfinite(expected)):
            raise StepError(f"node '{name}': its sums are beyond float32: nothing can be measured", _OVERFLOW)
        found.append(StaticMatMul(reader, name, low, high, scales, error, expected))
    return found


def quantize_matmuls(
    model: ModelProto, matmuls: Sequence[StaticMatMul], limit: int, form: Format, folder: Path
) -> dict[str, Int8Content]:
    """Rewrite the nodes. Returns the integers, within ±`limit`, of the new initializers, made of floats in `folder`.

    'qdq' leaves the MatMuls, between DequantizeLinears; 'qoperator' makes each a MatMulInteger, a Cast and a Mul.
    Float weights that nothing reads any more are left out.
    """
    rewriter = _Rewriter(model, limit, form, folder)
    nodes: list[NodeProto] = []
    chosen = {one.matmul.node.output[0]: one for one in matmuls}
    for node in model.graph.node:
        one = chosen.get(node.output[0])
        nodes.extend([node] if one is None else rewriter.rewritten(one))
    copies = []
    for node in nodes:
        copies.append(NodeProto())
        copies[-1].CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(copies)
    drop_unread(model.graph, {one.matmul.weight.name for one in matmuls})
    return rewriter.contents


class _Rewriter:
    def __init__(self, model: ModelProto, limit: int, form: Format, folder: Path) -> None:
        self._graph = model.graph
        self._limit = limit
        self._form = form
        self._folder = folder
        self._done: set[str] = set()  # what was quantised before: for another reader
        self.contents: dict[str, Int8Content] = {}

    def rewritten(self, one: StaticMatMul) -> list[NodeProto]:
        """The nodes in the place of a MatMul, with those that quantise its inputs if no other has yet."""
        node, value, weight = one.matmul.node, one.matmul.activation, one.matmul.weight.name
        before = [*self._activation(one), *self._weight(one)]
        if self._form == "qdq":
            inputs = [f"{value}_dequantized", f"{weight}_dequantized"]
            return [*before, helper.make_node("MatMul", inputs, node.output, node.name)]
        total, scale = f"{node.output[0]}_integer", f"{node.output[0]}_scale"
        both = activation_scale(one.low, one.high)[0] * one.weight_scales
        self._add(scale, both)
        integers = [f"{value}_quantized", f"{weight}_quantized", f"{value}_zero_point"]
        return [
            *before,
            helper.make_node("MatMulInteger", integers, [total], f"{node.name}_quant"),
            helper.make_node("Cast", [total], [f"{total}_cast"], f"{node.name}_cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{total}_cast", scale], node.output, f"{node.name}_mul"),
        ]

    def _activation(self, one: StaticMatMul) -> list[NodeProto]:
        value = one.matmul.activation
        if value in self._done:
            return []
        self._done.add(value)
        scale, zero_point = activation_scale(one.low, one.high)
        self._add(f"{value}_scale", np.asarray(scale))
        self._add(f"{value}_zero_point", np.asarray(zero_point, np.uint8))
        nodes = [self._node("QuantizeLinear", value, value, f"{value}_quantized")]
        if self._form == "qdq":
            nodes.append(self._node("DequantizeLinear", value, f"{value}_quantized", f"{value}_dequantized"))
        return nodes

    def _weight(self, one: StaticMatMul) -> list[NodeProto]:
        tensor = one.matmul.weight
        if tensor.name in self._done:
            return []
        self._done.add(tensor.name)
        content = Int8Content(stored_content(tensor, self._folder), one.weight_scales, self._limit)
        quantized = self._graph.initializer.add()
        quantized.CopyFrom(tensor)
        quantized.name, quantized.data_type = f"{tensor.name}_quantized", TensorProto.INT8
        self.contents[quantized.name] = content
        if self._form == "qoperator":
            return []
        self._add(f"{tensor.name}_scale", one.weight_scales)
        self._add(f"{tensor.name}_zero_point", np.zeros(len(one.weight_scales), np.int8))
        name = tensor.name
        return [self._node("DequantizeLinear", name, f"{name}_quantized", f"{name}_dequantized", axis=1)]

    def _node(self, op: str, of: str, given: str, made: str, **attributes: Any) -> NodeProto:
        inputs = [given, f"{of}_scale", f"{of}_zero_point"]
        return helper.make_node(op, inputs, [made], f"{of}_{op}", **attributes)

    def _add(self, name: str, numbers: NDArray[np.generic]) -> None:
        self._graph.initializer.add().CopyFrom(numpy_helper.from_array(numbers, name))

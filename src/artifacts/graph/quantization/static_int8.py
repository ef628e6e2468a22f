"""Rewrite MatMuls by constant weights to compute on 8-bit integers with calibrated scales.

Activations become uint8 with one scale and zero point, by one QuantizeLinear for all MatMuls that consume a value.
Weights are int8 with a scale for each column. Products stay float, as in public files: to requantise them would be less
exact.
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
from artifacts.graph.nodes import replace_nodes
from artifacts.graph.quantization.activation_statistics import StatisticsReader
from artifacts.graph.quantization.calibrated_matmuls import (
    Span,
    Trial,
    activation_scale,
    column_scales,
    expected_errors,
    quantized_rows,
    read_calibrated,
    relative_errors,
    rounded_outwards,
)
from artifacts.graph.quantization.float_model import remove_unused_initializers
from artifacts.graph.quantization.matrix_content import SymmetricInt8Content
from artifacts.graph.quantization.weight_matmuls import WeightMatMul
from artifacts.graph.tensor_content import stored_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OVERFLOW_FIX = "calibrate again, or train or export the checkpoint again"

Format = Literal["qdq", "qoperator"]

# Significant bits of the ends of an activation's range. The last bits of a measurement do not change them, and the
# range is 0.6 % wider on average.
RANGE_BITS = 7


@dataclass(frozen=True)
class StaticMatMul:
    """A MatMul to quantise, the range of its activation, and the scale `[N]` of each column of its weight.

    `error` is ||Q(X) Q(W) - XW||² / ||XW||² on the sample frames. `expected_error` is its expected value; nodes are
    ranked by it.
    """

    matmul: WeightMatMul
    node_name: str
    low: float
    high: float
    weight_scales: NDArray[np.float32]
    error: float
    expected_error: float


def measure_matmuls(
    matmuls: Sequence[WeightMatMul], statistics: StatisticsReader, folder: Path, limit: int, clipped: bool
) -> list[StaticMatMul]:
    """Return scales and errors of the MatMuls that consume one value.

    With `clipped` the value's range ends at the calibrated percentile. The ends are rounded outwards to RANGE_BITS.
    Raises StepError for statistics of another model, and for a weight that has NaN or would become all zeros.
    """
    measured, weights = read_calibrated(matmuls, statistics, folder)
    low, high = float(measured.low.min()), float(measured.high.max())
    if clipped and measured.clip > 0:  # it is 0 where nearly all numbers are 0
        low, high = max(low, -measured.clip), min(high, measured.clip)
    low, high = rounded_outwards(low, RANGE_BITS), rounded_outwards(high, RANGE_BITS)
    trial = Trial(np.ones_like(measured.low), *quantized_rows(measured.rows, low, high))
    found = []
    for matmul, weight in zip(matmuls, weights, strict=True):
        scales = column_scales(np.maximum(weight.max(axis=0), -weight.min(axis=0)), limit)
        if weight.any() and not (np.abs(weight) / scales >= 0.5).any():
            raise StepError(
                f"weight '{matmul.weight.name}': quantised to zeros",
                "add the nodes that consume it to nodes_to_exclude",
            )
        (error,) = relative_errors(measured.rows, weight, [trial], limit)
        (expected,) = expected_errors(measured.rows, weight, [Span(trial.scale, low, high)], limit)
        name = matmul.node.name or matmul.node.output[0]
        if not (isfinite(error) and isfinite(expected)):
            raise StepError(f"node '{name}': its products overflow float32: no error can be measured", _OVERFLOW_FIX)
        found.append(StaticMatMul(matmul, name, low, high, scales, error, expected))
    return found


def quantize_matmuls(
    model: ModelProto, matmuls: Sequence[StaticMatMul], limit: int, form: Format, folder: Path
) -> dict[str, SymmetricInt8Content]:
    """Rewrite the nodes. Return the int8 content, within ±`limit`, of each new initializer.

    It is computed as it is written, from the floats in `folder`.

    'qdq' keeps the MatMuls, behind DequantizeLinears. 'qoperator' turns each into a MatMulInteger, a Cast and a Mul.
    Float weights without consumers are removed.
    """
    rewriter = _Int8Rewriter(model, limit, form, folder)
    nodes: list[NodeProto] = []
    chosen = {one.matmul.node.output[0]: one for one in matmuls}
    for node in model.graph.node:
        one = chosen.get(node.output[0])
        nodes.extend([node] if one is None else rewriter.rewritten(one))
    replace_nodes(model.graph, nodes)
    remove_unused_initializers(model.graph, {one.matmul.weight.name for one in matmuls})
    return rewriter.contents


class _Int8Rewriter:
    def __init__(self, model: ModelProto, limit: int, form: Format, folder: Path) -> None:
        self._graph = model.graph
        self._limit = limit
        self._form = form
        self._folder = folder
        self._quantized: set[str] = set()  # names that are quantised already, for another consumer
        self.contents: dict[str, SymmetricInt8Content] = {}

    def rewritten(self, one: StaticMatMul) -> list[NodeProto]:
        """Return the nodes that replace a MatMul, and those that quantise its inputs if they are still float."""
        node, value, weight = one.matmul.node, one.matmul.activation, one.matmul.weight.name
        before = [*self._activation(one), *self._weight(one)]
        if self._form == "qdq":
            inputs = [f"{value}_dequantized", f"{weight}_dequantized"]
            return [*before, helper.make_node("MatMul", inputs, node.output, node.name)]
        total, scale = f"{node.output[0]}_integer", f"{node.output[0]}_scale"
        product_scale = activation_scale(one.low, one.high)[0] * one.weight_scales
        self._add(scale, product_scale)
        integers = [f"{value}_quantized", f"{weight}_quantized", f"{value}_zero_point"]
        return [
            *before,
            helper.make_node("MatMulInteger", integers, [total], f"{node.name}_quant"),
            helper.make_node("Cast", [total], [f"{total}_cast"], f"{node.name}_cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{total}_cast", scale], node.output, f"{node.name}_mul"),
        ]

    def _activation(self, one: StaticMatMul) -> list[NodeProto]:
        value = one.matmul.activation
        if value in self._quantized:
            return []
        self._quantized.add(value)
        scale, zero_point = activation_scale(one.low, one.high)
        self._add(f"{value}_scale", np.asarray(scale))
        self._add(f"{value}_zero_point", np.asarray(zero_point, np.uint8))
        nodes = [self._node("QuantizeLinear", value, value, f"{value}_quantized")]
        if self._form == "qdq":
            nodes.append(self._node("DequantizeLinear", value, f"{value}_quantized", f"{value}_dequantized"))
        return nodes

    def _weight(self, one: StaticMatMul) -> list[NodeProto]:
        tensor = one.matmul.weight
        if tensor.name in self._quantized:
            return []
        self._quantized.add(tensor.name)
        content = SymmetricInt8Content(stored_content(tensor, self._folder), one.weight_scales, self._limit)
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

    def _node(self, op: str, of: str, source: str, output: str, **attributes: Any) -> NodeProto:
        inputs = [source, f"{of}_scale", f"{of}_zero_point"]
        return helper.make_node(op, inputs, [output], f"{of}_{op}", **attributes)

    def _add(self, name: str, numbers: NDArray[np.generic]) -> None:
        self._graph.initializer.add().CopyFrom(numpy_helper.from_array(numbers, name))

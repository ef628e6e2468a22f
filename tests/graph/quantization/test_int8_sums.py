"""A weight is known to saturate from its numbers, on whatever processor this runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.quantization.int8_sums import LARGEST_ACTIVATION, LARGEST_SUM, check_sums, saturating_weights
from artifacts.graph.tensor_content import TensorReader

Array = np.ndarray[Any, Any]

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g '
ZEROS = "<uint8 z = {0}, int8 wz = {0}, float s = {1}>"
INTEGER = f"(uint8[1,2] x) => (int32[1,2] y) {ZEROS} {{ y = MatMulInteger(x, w, z, wz) }}"
QDQ = f"""(float[1,2] x) => (float[1,2] y) {ZEROS} {{
  q = QuantizeLinear(x, s, z)
  a = DequantizeLinear(q, s, z)
  b = DequantizeLinear(w, s, wz)
  y = MatMul(a, b)
}}"""
TURNED = QDQ.replace("y = MatMul(a, b)", "t = Transpose(b) u = Identity(t) y = MatMul(a, u)")
WEIGHT_ONLY = f"(float[1,2] x) => (float[1,2] y) {ZEROS} {{ b = DequantizeLinear(w, s, wz) y = MatMul(x, b) }}"
TABLE = f"(int64[1] i) => (float[1,2] y) {ZEROS} {{ r = Gather(w, i) y = DequantizeLinear(r, s, wz) }}"


def model(text: str, weight: Array) -> ModelProto:
    made = parser.parse_model(HEADER + text)
    made.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return made


def found(made: ModelProto) -> list[str]:
    with TensorReader(Path("model.onnx")) as reader:
        return saturating_weights(made, reader)


def weight(largest: int) -> Array:
    return np.array([[largest, 0], [1, -1]], np.int8)


@pytest.mark.parametrize("text", [INTEGER, QDQ, TURNED])
@pytest.mark.parametrize(("largest", "saturates"), [(64, False), (-64, False), (65, True), (-65, True), (-128, True)])
def test_the_limit_is_two_products_in_16_bits(text: str, largest: int, saturates: bool) -> None:
    assert found(model(text, weight(largest))) == (["w"] if saturates else [])
    assert saturates == (2 * LARGEST_ACTIVATION * abs(largest) > LARGEST_SUM)


@pytest.mark.parametrize("text", [WEIGHT_ONLY, TABLE])
def test_weights_that_are_not_multiplied_as_integers_do_not_count(text: str) -> None:
    assert found(model(text, weight(127))) == []


def test_unsigned_weights_never_saturate() -> None:
    assert found(model(INTEGER.replace("int8 wz", "uint8 wz"), np.full((2, 2), 255, np.uint8))) == []


def test_a_weight_that_saturates_is_refused_by_its_name() -> None:
    with TensorReader(Path("model.onnx")) as reader:
        check_sums(model(INTEGER, weight(64)), reader)
        with pytest.raises(StepError, match="weight 'w': two of its products can exceed 32767"):
            check_sums(model(INTEGER, weight(127)), reader)

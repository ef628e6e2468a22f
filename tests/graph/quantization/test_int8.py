"""Quantised graphs are recognised, their weights counted and looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.quantization.int8 import check_finite, check_quantized, count_readers, quantized_node
from artifacts.graph.tensor_reader import TensorReader

HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '
QUANTIZED = (
    HEADER
    + """(float[1,2] x) => (int32[1,2] y)
<uint8[2,2] w_quantized = {1, 2, 3, 4}, uint8 w_zero_point = {2}, float w_scale = {0.5}> {
  q, scale, zero = DynamicQuantizeLinear(x)
  y = MatMulInteger(q, w_quantized, zero, w_zero_point)
}"""
)


def check(model: ModelProto, numbers: object) -> int:
    with TensorReader(Path("model.onnx")) as reader:
        return check_quantized(model, reader, original(numbers), reader)


def original(numbers: object) -> ModelProto:
    model = parser.parse_model(HEADER + "(float[1,2] x) => (float[1,2] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.float32), "w"))
    return model


def test_a_quantised_graph_is_recognised() -> None:
    node = quantized_node(parser.parse_model(QUANTIZED))
    assert node is not None
    assert node.op_type == "DynamicQuantizeLinear"
    assert quantized_node(parser.parse_model(HEADER + "(float[2] x) => (float[2] y) { y = Neg(x) }")) is None


def test_readers_of_weights_are_counted_by_op() -> None:
    assert count_readers(parser.parse_model(QUANTIZED)) == {"MatMulInteger": 1}


def test_sound_weights_are_counted() -> None:
    assert check(parser.parse_model(QUANTIZED), [[-0.5, 0], [0.5, 1]]) == 1


def test_names_that_only_look_quantised_and_weights_whose_scale_nothing_reads_are_passed_over() -> None:
    model = parser.parse_model(
        QUANTIZED.replace("uint8 w_zero_point", "float[1] b_quantized = {1}, uint8 w_zero_point")
    )
    assert check(model, [[-0.5, 0], [0.5, 1]]) == 1
    with TensorReader(Path("model.onnx")) as reader:
        assert check_quantized(model, reader, model, reader) == 0  # the names are the model's own
    del model.graph.initializer[-1]
    assert check(model, [[-0.5, 0], [0.5, 1]]) == 0


@pytest.mark.parametrize("scale", ["nan", "inf", "0", "-1"])
def test_a_scale_must_be_a_positive_number(scale: str) -> None:
    model = parser.parse_model(QUANTIZED)
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array(float(scale), np.float32), "w_scale"))
    with pytest.raises(StepError, match="weight 'w': quantised with the scale"):
        check(model, [[-0.5, 0], [0.5, 1]])


def test_a_weight_must_not_become_one_number() -> None:
    model = parser.parse_model(QUANTIZED.replace("{1, 2, 3, 4}", "{2, 2, 2, 2}"))
    with pytest.raises(StepError, match="weight 'w': quantised to one single number"):
        check(model, [[-0.5, 0], [0.5, 1]])
    assert check(model, [[0, 0], [0, 0]]) == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_weights_to_quantise_must_be_finite(wrong: float) -> None:
    model = original([[1, wrong]])
    with TensorReader(Path("model.onnx")) as reader:
        check_finite(model, reader, {"Conv"})
        with pytest.raises(StepError, match="weight 'w': holds NaN or infinity"):
            check_finite(model, reader, {"MatMul"})

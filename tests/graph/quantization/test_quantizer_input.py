"""A quantiser refuses what it cannot take, and names of nodes that there are not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.quantization.quantizer_input import check_excluded, check_float_model

FLOAT = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2] x) => (float[1,2] y) { y = MatMul(x, w) }'
QUANTIZED = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,2] x) => (uint8[1,2] y)
<float scale = {0.5}, uint8 zero = {2}> { y = QuantizeLinear(x, scale, zero) }"""


def test_a_float_model_passes() -> None:
    model = parser.parse_model(FLOAT)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "w"))
    check_float_model(model, "model.onnx")


def test_a_quantised_model_is_refused_with_the_node_that_tells() -> None:
    model = parser.parse_model(QUANTIZED)
    model.graph.node[0].name = "here"
    with pytest.raises(StepError) as caught:
        check_float_model(model, "model.onnx")
    assert str(caught.value) == (
        "model.onnx: quantised already: node 'here' is a QuantizeLinear\n  fix: give the fp32 model"
    )


def test_an_fp16_model_is_refused() -> None:
    model = parser.parse_model(FLOAT)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float16), "w"))
    with pytest.raises(StepError, match=r"model\.onnx: holds fp16 tensors"):
        check_float_model(model, "model.onnx")


def test_names_of_nodes_pass_and_others_are_met_with_the_nearest() -> None:
    model = parser.parse_model(FLOAT)
    model.graph.node[0].name = "/layers.0/linear1/MatMul"
    check_excluded((), model, "model.onnx")
    check_excluded(("/layers.0/linear1/MatMul",), model, "model.onnx")
    with pytest.raises(StepError, match=r"model\.onnx: no node is called '/layers\.0/linear1'") as caught:
        check_excluded(("/layers.0/linear1/MatMul", "/layers.0/linear1"), model, "model.onnx")
    assert caught.value.fix == "did you mean '/layers.0/linear1/MatMul'?"
    with pytest.raises(StepError) as caught:
        check_excluded(("nothing alike",), model, "model.onnx")
    assert caught.value.fix == "name nodes of model.onnx in nodes_to_exclude"

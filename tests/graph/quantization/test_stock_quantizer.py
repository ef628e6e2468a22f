"""Models that ONNX Runtime's quantiser would convert wrongly are corrected, and its output is checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, checker, helper, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.quantization.stock_quantizer import (
    check_dense,
    check_finite,
    check_quantized,
    count_consumers,
    drop_weight_inputs,
    separate_weights,
)
from artifacts.graph.tensor_content import TensorReader

FLOAT = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2] x) => (float[1,2] y) { y = MatMul(x, w) }'
SHARED = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,1,2] x, bool c) => (float[1,2] y)
<float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {1, 2, 3, 4}> {
  a = Squeeze(x)
  b = Gemm <transB = 1> (a, w)
  d = Gemm <transB = 1> (b, w)
  e = MatMul(d, w)
  f = Gemm (e, v)
  h = Gemm <transB = 1, alpha = 2.0> (f, v)
  l = LSTM <hidden_size = 2> (x, r, r)
  y = If (c) <
    then_branch = one () => (float[1,2] p) { p = Gemm <transB = 1> (h, w) },
    else_branch = two () => (float[1,2] q)
      <float[2,2] u = {1, 2, 3, 4}> { s = Gemm <transB = 1> (h, u) q = Gemm <transB = 1> (s, u) }
  >
}"""


def shared_model(v: str = "v") -> ModelProto:
    model = parser.parse_model(SHARED.replace(" v ", f" {v} ").replace(" v)", f" {v})"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 8, 2), np.float32), "r"))
    return model


def test_nodes_whose_weight_is_transposed_in_place_get_an_own_copy() -> None:
    model = shared_model()
    separate_weights(model, ("LSTM",), ())
    nodes = {node.output[0]: node for node in model.graph.node}
    assert [nodes[name].input[1] for name in "bde"] == ["w_copy_4", "w_copy_3", "w"]
    assert [nodes[name].input[1] for name in "fh"] == ["v", "v"], "these are not transposed"
    assert list(nodes["l"].input) == ["x", "r_copy_2", "r"]
    one, two = (attribute.g for attribute in nodes["y"].attribute)
    assert one.node[0].input[1] == "w_copy_2"
    assert [node.input[1] for node in two.node] == ["u_copy_2", "u"]
    tensors = {tensor.name: tensor for graph in (model.graph, two) for tensor in graph.initializer}
    for name in ("w_copy_4", "w_copy_3", "w_copy_2", "u_copy_2"):
        np.testing.assert_array_equal(numpy_helper.to_array(tensors[name]), [[1, 2], [3, 4]])


@pytest.mark.parametrize(("op_types", "excluded"), [(("MatMul",), ()), (("MatMul", "LSTM"), ("l",))])
def test_weights_of_lstms_that_stay_float_stay_shared(op_types: tuple[str, ...], excluded: tuple[str, ...]) -> None:
    model = shared_model()
    (lstm,) = (node for node in model.graph.node if node.op_type == "LSTM")
    lstm.name = "l"
    separate_weights(model, op_types, excluded)
    assert list(lstm.input) == ["x", "r", "r"]


def test_a_copy_gets_a_free_name() -> None:
    model = shared_model(v="w_copy_4")
    separate_weights(model, (), ())
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    assert "w_copy_4_" in names


def test_a_model_without_shared_weights_stays_as_it_is() -> None:
    model = parser.parse_model(FLOAT.replace("MatMul", "Gemm <transB = 1> "))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "w"))
    before = model.SerializeToString()
    separate_weights(model, ("LSTM", "MatMul"), ())
    drop_weight_inputs(model)
    check_dense(model)
    assert model.SerializeToString() == before


def test_weights_of_an_old_file_are_not_inputs_any_more() -> None:
    model = parser.parse_model(FLOAT.replace("ir_version: 8", "ir_version: 3").replace("x)", "x, float[2,2] w)", 1))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "w"))
    drop_weight_inputs(model)
    assert (model.ir_version, [value.name for value in model.graph.input]) == (4, ["x"])
    checker.check_model(model)


def test_a_model_with_sparse_weights_is_refused() -> None:
    model = parser.parse_model(FLOAT)
    values, places = helper.make_tensor("w", 1, [1], [2.0]), helper.make_tensor("places", 7, [1], [3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 2]))
    with pytest.raises(StepError) as caught:
        check_dense(model)
    assert str(caught.value) == "weight 'w' is sparse\n  fix: export the model with dense weights"


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


def test_consumers_of_weights_are_counted_by_op() -> None:
    assert count_consumers(parser.parse_model(QUANTIZED)) == {"MatMulInteger": 1}


def test_sound_weights_are_counted() -> None:
    assert check(parser.parse_model(QUANTIZED), [[-0.5, 0], [0.5, 1]]) == 1


def test_names_that_only_look_quantised_and_weights_without_a_used_scale_are_ignored() -> None:
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
    with pytest.raises(StepError, match="weight 'w': quantised to a single number"):
        check(model, [[-0.5, 0], [0.5, 1]])
    assert check(model, [[0, 0], [0, 0]]) == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_weights_to_quantise_must_be_finite(wrong: float) -> None:
    model = original([[1, wrong]])
    with TensorReader(Path("model.onnx")) as reader:
        check_finite(model, reader, {"Conv"})
        with pytest.raises(StepError, match="weight 'w': has NaN or infinity"):
            check_finite(model, reader, {"MatMul"})

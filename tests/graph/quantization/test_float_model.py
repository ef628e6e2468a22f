"""A quantiser refuses a model that is not float32, and names of nodes that do not exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.quantization.float_model import (
    constants_to_initializers,
    open_float_model,
    remove_unused_initializers,
)

FLOAT = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2] x) => (float[1,2] y) { y = MatMul(x, w) }'
QUANTIZED = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,2] x) => (uint8[1,2] y)
<float scale = {0.5}, uint8 zero = {2}> { y = QuantizeLinear(x, scale, zero) }"""


def saved(folder: Path, text: str, name: str, weight: object = None) -> Path:
    """A folder with a model whose only node has the name."""
    model = parser.parse_model(text)
    model.graph.node[0].name = name
    if weight is not None:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(weight), "w"))
    onnx.save(model, folder / "model.onnx")
    return folder


def test_a_float_model_comes_with_its_path(tmp_path: Path) -> None:
    path, model = open_float_model(saved(tmp_path, FLOAT, "product", np.ones((2, 2), np.float32)), ("product",))
    assert path == tmp_path / "model.onnx"
    assert model.graph.node[0].name == "product"


def test_a_quantised_model_is_refused_with_the_name_of_a_quantised_node(tmp_path: Path) -> None:
    with pytest.raises(StepError) as caught:
        open_float_model(saved(tmp_path, QUANTIZED, "here"))
    assert str(caught.value) == (
        "model.onnx: quantised already: node 'here' is a QuantizeLinear\n  fix: give the fp32 model"
    )


def test_an_fp16_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^model\.onnx: has fp16 tensors"):
        open_float_model(saved(tmp_path, FLOAT, "product", np.ones((2, 2), np.float16)))


def test_an_excluded_name_that_no_node_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    name = "/layers.0/linear1/MatMul"
    saved(tmp_path, FLOAT, name, np.ones((2, 2), np.float32))
    with pytest.raises(StepError, match=r"^model\.onnx: no node is called '/layers\.0/linear1'") as caught:
        open_float_model(tmp_path, (name, "/layers.0/linear1"))
    assert caught.value.fix == f"did you mean '{name}'?"
    with pytest.raises(StepError) as caught:
        open_float_model(tmp_path, ("nothing alike",))
    assert caught.value.fix == "name nodes of the model in nodes_to_exclude"


def test_no_name_excludes_no_node(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")  # its nodes have no names
    with pytest.raises(StepError, match=r"m\.onnx: no node is called ''"):
        open_float_model(tmp_path, ("",))


MODEL = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool which) => (float[2] y, float[1] out)
<float[2] body_only = {1, 2}, float[2] unread = {3, 4}, float[1] out = {5}, float[2] kept = {6, 7}> {
  matrix = Constant<value = float[2] {8, 9}>()
  whole = Constant<value = int64[1] {1}>()
  z = Add(x, matrix)
  y = If(which) <
    then_branch = a () => (float[2] p) { p = Add(z, body_only) },
    else_branch = b () => (float[2] q) { q = Identity(z) }
  >
}"""


def model() -> ModelProto:
    return parser.parse_model(MODEL)


def test_wanted_constants_become_initializers_and_others_stay() -> None:
    graph = model().graph
    constants_to_initializers(graph, lambda value: value.data_type == TensorProto.FLOAT)
    assert [node.op_type for node in graph.node] == ["Constant", "Add", "If"]
    assert graph.initializer[-1].name == "matrix"
    assert list(graph.initializer[-1].float_data) == [8, 9]


def test_only_named_initializers_without_consumers_are_removed() -> None:
    graph = model().graph
    remove_unused_initializers(graph, ["body_only", "unread", "out"])
    assert [tensor.name for tensor in graph.initializer] == ["body_only", "out", "kept"]

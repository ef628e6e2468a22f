"""The MatMuls with a weight are found, wherever an exporter left it, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from artifacts.graph.model_file import load_graph, save_graph
from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers, weight_matmuls

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 4] x) => (float[2, 3] y)
<float[4, 5] w = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, float[2] vector = {1, 2}> {
  a = MatMul(x, w)
  b = Constant()
  c = MatMul(a, b)
  scores = MatMul(c, c)
  left = MatMul(w, a)
  by_vector = MatMul(x, vector)
  product = Gemm(x, w)
}
"""
MATRIX = np.arange(15, dtype=np.float32).reshape(5, 3)


@pytest.fixture
def model() -> ModelProto:
    """A weight in the initializers, one in a Constant, and products that have none on their right."""
    model = parser.parse_model(GRAPH)
    give(model.graph.node[1], "value", numpy_helper.from_array(MATRIX))
    return model


def give(node: NodeProto, name: str, value: object) -> None:
    node.attribute.append(helper.make_attribute(name, value))


def test_a_weight_is_a_float_matrix_on_the_right(model: ModelProto) -> None:
    (found,) = weight_matmuls(model)
    assert found.node.output[0] == "a"
    assert (found.weight.name, found.activation, found.sizes) == ("w", "x", (4, 5))
    model.graph.initializer[0].data_type = TensorProto.FLOAT16
    assert not weight_matmuls(model)


def test_a_weight_in_a_constant_is_found_once_it_is_an_initializer(model: ModelProto) -> None:
    matrices_to_initializers(model)
    assert [(found.weight.name, found.sizes) for found in weight_matmuls(model)] == [("w", (4, 5)), ("b", (5, 3))]
    assert "Constant" not in {node.op_type for node in model.graph.node}
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[-1]), MATRIX)


def test_constants_that_are_not_float_matrices_stay(model: ModelProto) -> None:
    vector, integers = np.ones(4, np.float32), np.ones((4, 4), np.int64)
    for values in (vector, integers):
        node = helper.make_node("Constant", [], [f"of {values.dtype}"], value=numpy_helper.from_array(values))
        model.graph.node.append(node)
    model.graph.node.append(helper.make_node("Constant", [], ["number"], value_float=1.0))
    foreign = helper.make_node("Constant", [], ["foreign"], domain="else.where", value=numpy_helper.from_array(MATRIX))
    model.graph.node.append(foreign)
    kept = list(model.graph.node)[-4:]
    matrices_to_initializers(model)
    assert list(model.graph.node)[-4:] == kept
    assert [tensor.name for tensor in model.graph.initializer] == ["w", "vector", "b"]


def test_external_constants_stay_where_they_are(loose_file: Path, tmp_path: Path) -> None:
    model = load_graph(loose_file)
    (constant,) = (node for node in model.graph.node if node.op_type == "Constant")
    places = [(entry.key, entry.value) for entry in constant.attribute[0].t.external_data]
    assert places
    values = {node.output[0]: node.attribute[0].t for node in onnx.load(loose_file).graph.node if not node.input}
    expected = numpy_helper.to_array(values[constant.output[0]])
    matrices_to_initializers(model)
    moved = next(tensor for tensor in model.graph.initializer if tensor.name == "constant")
    assert [(entry.key, entry.value) for entry in moved.external_data] == places
    save_graph(model, tmp_path / "model.onnx", source_folder=loose_file.parent, external=False)
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    np.testing.assert_array_equal(found["constant"], expected)


def test_the_encoder_has_the_weights_that_its_layers_have(encoder_fp32: Path) -> None:
    (path,) = encoder_fp32.glob("*.onnx")
    found = [matmul.node.name for matmul in weight_matmuls(load_graph(path))]
    layers = {name.split("/")[1] for name in found if name.startswith("/layers.")}
    assert len(found) == 9 * len(layers) + 1  # four feed-forward, five of attention; and behind the subsampling
    assert not [name for name in found if name.endswith(("self_attn/MatMul", "self_attn/MatMul_1"))]

"""Int8 weights are read through a DequantizeLinear with their old name, wherever they are."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.content import InTensor
from artifacts.graph.node_order import bodies
from artifacts.graph.quantization.dequantize_nodes import check_opset, dequantize
from artifacts.graph.quantization.large_weights import large_weights
from artifacts.graph.quantization.levelled_content import Int8Content
from artifacts.graph.quantization.replaced_weights import replace_contents
from artifacts.graph.quantization.weight_blocks import shape_by_channel
from artifacts.graph.tensor_writer import stored_tensors


def quantized(model: ModelProto, min_elements: int = 300, *, per_channel: bool = False) -> ModelProto:
    """A copy with its large weights in int8, by tensor or by their last axis."""
    model = deepcopy(model)
    weights = large_weights(model, min_elements, ())
    axes = [len(weight.tensor.dims) - 1 if per_channel else None for weight in weights]
    contents = [
        Int8Content(weight.tensor.name, InTensor(weight.tensor), shape_by_channel(weight.tensor.dims, axis))
        for weight, axis in zip(weights, axes, strict=True)
    ]
    new = [(weight.tensor, content) for weight, content in zip(weights, contents, strict=True)]
    replace_contents(stored_tensors(model, Path()), new)
    for made, content in zip(dequantize(model, list(zip(weights, axes, strict=True))), contents, strict=True):
        assert content.levels is not None
        made.give(content.levels)
    onnx.checker.check_model(model, full_check=True)
    return model


def dequantizers(nodes: list[NodeProto]) -> dict[str, NodeProto]:
    found = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    for node in nodes:
        for body in bodies(node):
            found |= dequantizers(list(body.node))
    return found


def test_every_weight_is_dequantised_in_its_own_graph_right_before_it_is_read(places_model: ModelProto) -> None:
    model = quantized(places_model)
    assert [node.op_type for node in model.graph.node] == [
        "DequantizeLinear", "MatMul", "DequantizeLinear", "MatMul", "DequantizeLinear", "Add", "Add", "ReduceSum",
        "Greater", "If",
    ]  # fmt: skip
    branches = [attribute.g for attribute in model.graph.node[-1].attribute]
    assert [[node.op_type for node in body.node] for body in branches] == [
        ["DequantizeLinear", "Add"],
        ["DequantizeLinear", "Mul"],
    ]
    named = dequantizers(list(model.graph.node))
    assert set(named) == {"raw_weight", "typed_weight", "constant", "in_branch", "in_else"}
    for name, node in named.items():
        assert list(node.input) == [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
        assert node.name == f"{name}_DequantizeLinear"


def test_the_values_come_back_within_half_a_step(places_model: ModelProto) -> None:
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in places_model.graph.initializer}
    for per_channel in (False, True):
        model = quantized(places_model, 4000, per_channel=per_channel)
        after = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name in ("raw_weight", "typed_weight"):
            numbers, scale = after[f"{name}_quantized"], after[f"{name}_scale"]
            zero_point = after[f"{name}_zero_point"]
            assert numbers.dtype == zero_point.dtype == np.int8
            assert scale.shape == zero_point.shape == ((64,) if per_channel else ())
            values = (numbers.astype(np.float32) - zero_point) * scale
            assert (np.abs(values - before[name]) <= scale * 0.50001).all()
        axes = [
            helper.get_node_attr_value(node, "axis")
            for node in model.graph.node
            if node.attribute[:1] and per_channel and node.op_type == "DequantizeLinear"
        ]
        assert axes == ([1, 1] if per_channel else [])


def test_other_nodes_stay_the_objects_that_they_were(places_model: ModelProto) -> None:
    before = list(places_model.graph.node)
    dequantize(places_model, [(weight, None) for weight in large_weights(places_model, 4000, ())])
    after = [node for node in places_model.graph.node if node.op_type != "DequantizeLinear"]
    assert all(old is new for old, new in zip(before, after, strict=True))


def test_new_names_are_free_names() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] w_scale) => (float[2,2] y)
    <float[2,2] w = {1, 2, 3, 4}> { w_quantized = MatMul(w_scale, w) y = Neg(w_quantized) }"""
    model = quantized(parser.parse_model(text), 3)
    assert [tensor.name for tensor in model.graph.initializer] == ["w_quantized_", "w_scale_", "w_zero_point"]
    names = Counter(name for node in model.graph.node for name in (*node.output, node.name))
    assert names["w_quantized"] == 1


@pytest.mark.parametrize(("opset", "per_channel"), [(9, False), (12, True), (9, True)])
def test_an_opset_without_dequantize_linear_is_refused(opset: int, per_channel: bool) -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", opset)])
    with pytest.raises(StepError, match=f"opset {opset} has no DequantizeLinear"):
        check_opset(model, per_channel=per_channel)


@pytest.mark.parametrize(("opset", "per_channel"), [(10, False), (13, True), (21, True)])
def test_a_later_opset_will_do(opset: int, per_channel: bool) -> None:
    other = helper.make_opsetid("com.microsoft", 1)
    graph = helper.make_graph([], "g", [], [])
    check_opset(
        helper.make_model(graph, opset_imports=[other, helper.make_opsetid("ai.onnx", opset)]), per_channel=per_channel
    )


def test_a_weight_that_several_nodes_read_is_dequantised_once() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x) => (float[2,2] y)
    <float[2,2] w = {1, 2, 3, 4}> { a = Neg(x) b = MatMul(a, w) y = MatMul(b, w) }"""
    model = quantized(parser.parse_model(text), 3, per_channel=True)
    assert [node.op_type for node in model.graph.node] == ["Neg", "DequantizeLinear", "MatMul", "MatMul"]
    assert model.graph.initializer[0].data_type == TensorProto.INT8

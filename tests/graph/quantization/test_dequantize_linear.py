"""Int8 weights are dequantised under their old name, with scales along the axis of the outputs."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.nodes import subgraphs
from artifacts.graph.quantization.dequantize_linear import channel_axis, check_opset, dequantize
from artifacts.graph.quantization.large_weights import Consumer, large_weights, replace_contents
from artifacts.graph.quantization.weight_grid import AsymmetricInt8Content, shape_by_channel
from artifacts.graph.tensor_content import InTensor
from artifacts.graph.tensor_writer import stored_tensors


def quantized(model: ModelProto, min_elements: int = 300, *, per_channel: bool = False) -> ModelProto:
    """A copy with its large weights in int8, by tensor or by their last axis."""
    model = deepcopy(model)
    weights = large_weights(model, min_elements, ())
    axes = [len(weight.tensor.dims) - 1 if per_channel else None for weight in weights]
    contents = [
        AsymmetricInt8Content(weight.tensor.name, InTensor(weight.tensor), shape_by_channel(weight.tensor.dims, axis))
        for weight, axis in zip(weights, axes, strict=True)
    ]
    new = [(weight.tensor, content) for weight, content in zip(weights, contents, strict=True)]
    replace_contents(stored_tensors(model, Path()), new)
    for made, content in zip(dequantize(model, list(zip(weights, axes, strict=True))), contents, strict=True):
        assert content.grid is not None
        made.set_values(content.grid)
    onnx.checker.check_model(model, full_check=True)
    return model


def dequantizers(nodes: list[NodeProto]) -> dict[str, NodeProto]:
    found = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    for node in nodes:
        for body in subgraphs(node):
            found |= dequantizers(list(body.node))
    return found


def test_every_weight_is_dequantised_in_its_own_graph_right_before_its_first_consumer(places_model: ModelProto) -> None:
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


def test_a_weight_of_a_subgraph_may_have_the_name_of_an_outer_weight() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (bool go, float[2,2] x) => (float[2,2] y)
    <float[2,2] w = {1, 2, 3, 4}> {
      a = If(go) <
        then_branch = then_ () => (float[2,2] b) <float[2,2] w = {5, 6, 7, 8}> { b = MatMul(x, w) },
        else_branch = else_ () => (float[2,2] c) { c = Neg(x) }
      >
      y = MatMul(a, w)
    }"""
    model = parser.parse_model(text)
    after = quantized(model, 3)
    assert [node.op_type for node in after.graph.node] == ["If", "DequantizeLinear", "MatMul"]
    feeds = {"go": np.array(True), "x": np.eye(2, dtype=np.float32)}
    found, expected = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for one in (after, model)
    )
    assert np.abs(found - expected).max() < 1.0  # half a step of each weight


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


# Inputs with their shapes ("w" is the weight), attributes, and the axis of w.
CASES = [
    ("MatMul", {"x": (5, 6), "w": (6, 7)}, {}, 1),
    ("MatMul", {"x": (2, 5, 6), "w": (2, 6, 7)}, {}, 2),
    ("MatMul", {"w": (7, 6), "x": (6, 5)}, {}, 0),
    ("Gemm", {"x": (5, 6), "w": (6, 7)}, {}, 1),
    ("Gemm", {"x": (5, 6), "w": (7, 6)}, {"transB": 1}, 0),
    ("Gemm", {"w": (7, 6), "x": (6, 5)}, {}, 0),
    ("Gemm", {"w": (6, 7), "x": (6, 5)}, {"transA": 1}, 1),
    ("Conv", {"x": (1, 6, 9), "w": (7, 6, 3)}, {}, 0),
    ("Conv", {"x": (1, 6, 9), "w": (6, 1, 3)}, {"group": 6}, 0),
    ("ConvTranspose", {"x": (1, 6, 9), "w": (6, 7, 3)}, {}, 1),
]


@pytest.mark.parametrize(("op", "inputs", "attributes", "axis"), CASES)
def test_another_scale_for_a_channel_scales_one_channel_of_the_output(
    op: str, inputs: dict[str, tuple[int, ...]], attributes: dict[str, Any], axis: int
) -> None:
    node = helper.make_node(op, list(inputs), ["y"], **attributes)
    assert channel_axis([Consumer(node, list(inputs).index("w"))], len(inputs["w"])) == axis
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    graph = helper.make_graph([node], "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(dims, np.float32) for name, dims in inputs.items()}
    before = session.run(None, feeds)[0]
    np.moveaxis(feeds["w"], axis, 0)[2] *= 3
    changed = session.run(None, feeds)[0] != before
    lines = [
        {int(index) for index in np.unique(np.nonzero(changed)[of])} for of in range(changed.ndim) if changed.any()
    ]
    assert {2} in lines


def test_recurrent_layers_scale_each_gate_of_each_cell_and_tables_each_entry() -> None:
    for op in ("LSTM", "GRU", "RNN"):
        node = helper.make_node(op, ["x", "w", "r"], ["y"])
        assert [channel_axis([Consumer(node, index)], 3) for index in (1, 2)] == [1, 1]
    assert channel_axis([Consumer(helper.make_node("Gather", ["w", "i"], ["y"]), 0)], 2) == 0
    assert channel_axis([Consumer(helper.make_node("Gather", ["w", "i"], ["y"], axis=-1), 0)], 2) == 1


def test_consumers_that_disagree_or_have_no_channels_give_no_axis() -> None:
    right, left = (
        Consumer(helper.make_node("MatMul", names, ["y"]), names.index("w")) for names in (["x", "w"], ["w", "x"])
    )
    assert channel_axis([right, right], 2) == 1
    assert channel_axis([right, left], 2) is None
    assert channel_axis([right, Consumer(helper.make_node("Add", ["w", "x"], ["y"]), 0)], 2) is None
    assert channel_axis([left], 1) is None
    bias = helper.make_node("Gemm", ["a", "b", "w"], ["y"])
    assert channel_axis([Consumer(bias, 2)], 1) is None

"""Ways to break an ONNX model: each changes a parsed model, or the bytes of its file, in one respect."""

from __future__ import annotations

import random
from pathlib import Path

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, parser

from faults.onnx_changes import (
    NAMES,
    NOT_UTF8,
    PLACEHOLDER,
    Change,
    name_change,
    on_input,
    on_model,
    on_node,
    on_weight,
    opset,
    random_change,
    rename,
    set_dims,
)


def _cycle(model: ModelProto) -> None:
    model.graph.node[0].input[:1] = [model.graph.node[-1].output[0]]


def _identity_ring(model: ModelProto) -> None:
    matmul = next((node for node in model.graph.node if node.op_type == "MatMul"), model.graph.node[0])
    model.graph.node.append(helper.make_node("Identity", ["ring-a"], ["ring-b"]))
    model.graph.node.append(helper.make_node("Identity", ["ring-b"], ["ring-a"]))
    matmul.input[0] = "ring-a"


def _chain(model: ModelProto) -> None:
    """A MatMul reads what thousands of nodes pass on, one to the next."""
    matmul = next((node for node in model.graph.node if node.op_type == "MatMul"), model.graph.node[0])
    first = matmul.input[0]
    matmul.input[0] = "link-2999"
    links = [helper.make_node("Identity", [f"link-{i - 1}" if i else first], [f"link-{i}"]) for i in range(3000)]
    nodes = list(model.graph.node)
    place = next((index + 1 for index, node in enumerate(nodes) if first in node.output), 0)
    copies = []
    for node in (*nodes[:place], *links, *nodes[place:]):
        copies.append(NodeProto())
        copies[-1].CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(copies)


def nested(model: ModelProto, levels: int) -> None:
    """Put an If around an If around an If."""
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["z"], value_float=1.0)],
        "g",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [])],
    )
    for level in range(levels):
        node = (
            helper.make_node("If", ["c"], [f"z{level}"], then_branch=graph, else_branch=graph)
            if level < 12
            else (helper.make_node("If", ["c"], [f"z{level}"], then_branch=graph))
        )
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info(f"z{level}", TensorProto.FLOAT, [])])
    model.graph.node.extend(graph.node)
    model.graph.initializer.append(helper.make_tensor("c", TensorProto.BOOL, [], [True]))


def _deep_type(model: ModelProto) -> None:
    value = model.graph.value_info.add(name="deep").type
    for _ in range(40):
        value = value.sequence_type.elem_type
    value.tensor_type.elem_type = 1


def _fill(model: ModelProto, count: int) -> None:
    """A constant of `count` numbers, in the bytes of its shape, which an output shows."""
    model.graph.initializer.append(helper.make_tensor("fill-shape", TensorProto.INT64, [1], [count]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["fill-shape"], ["fill"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["fill"], ["fill-max"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("fill-max", TensorProto.FLOAT, []))


def _endless(model: ModelProto) -> None:
    """A Loop of 2^62 rounds, which an output shows."""
    body = parser.parse_graph("body (int64 i, bool go, float v) => (bool on, float w) { on = Identity(go) w = Neg(v) }")
    model.graph.initializer.append(helper.make_tensor("rounds", TensorProto.INT64, [], [2**62]))
    model.graph.initializer.append(helper.make_tensor("go", TensorProto.BOOL, [], [True]))
    model.graph.initializer.append(helper.make_tensor("start", TensorProto.FLOAT, [], [1.0]))
    model.graph.node.append(helper.make_node("Loop", ["rounds", "go", "start"], ["end"], body=body))
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.FLOAT, []))


def _sparse(model: ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.dims[:] = [10**6, 10**6]
    sparse.values.CopyFrom(helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0]))
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [2], [5, 10**13]))
    model.graph.node[0].input[:1] = ["sparse"]


def _function(model: ModelProto) -> None:
    function = model.functions.add(domain="own", name="again", input=["a"], output=["b"])
    function.opset_import.append(helper.make_opsetid("own", 1))
    function.node.append(helper.make_node("again", ["a"], ["b"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].domain, model.graph.node[0].op_type = "own", "again"


def _training(model: ModelProto) -> None:
    info = model.training_info.add()
    info.algorithm.CopyFrom(model.graph)
    info.initialization.node.append(helper.make_node("Nonsense", ["a"], ["b"]))


def _attribute_without_value(node: NodeProto) -> None:
    node.attribute.add(name="body", type=AttributeProto.GRAPH)
    node.attribute.add(name="value", type=AttributeProto.TENSOR)
    node.attribute.add(name="value", type=AttributeProto.TENSORS)


def _shrink_raw(tensor: TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-1]


def _retype_attributes(node: NodeProto) -> None:
    for attribute in node.attribute:
        attribute.type = AttributeProto.STRING if attribute.type == AttributeProto.INT else AttributeProto.INT
        attribute.ClearField("i")


CHANGES: dict[str, Change] = {
    **{f"name_{kind}": name_change(kind) for kind in NAMES},
    "name_duplicate": on_model(
        lambda model: rename(model, model.graph.node[0].output[0], model.graph.node[-1].output[0])
    ),
    **{f"random_{number}": random_change for number in range(40)},
    "opset_0": opset(("", 0)),
    "opset_negative": opset(("", -1)),
    "opset_1e9": opset(("", 10**9)),
    "opset_max": opset(("", 2**63 - 1)),
    "opset_old": opset(("", 1)),
    "opset_missing": opset(),
    "opset_of_another_domain": opset(("ai.onnx.ml", 3)),
    "opset_twice": opset(("", 17), ("ai.onnx", 11), ("", 99)),
    "op_unknown": on_node(lambda node: setattr(node, "op_type", "NoSuchOp")),
    "op_of_unknown_domain": on_node(lambda node: setattr(node, "domain", "nowhere.example")),
    "op_of_unimported_domain": on_node(lambda node: setattr(node, "domain", "com.microsoft")),
    "op_empty": on_node(lambda node: node.ClearField("op_type")),
    "ir_0": on_model(lambda model: setattr(model, "ir_version", 0)),
    "ir_1": on_model(lambda model: setattr(model, "ir_version", 1)),
    "ir_1e9": on_model(lambda model: setattr(model, "ir_version", 10**9)),
    "ir_negative": on_model(lambda model: setattr(model, "ir_version", -1)),
    "ir_missing": on_model(lambda model: model.ClearField("ir_version")),
    "dtype_0": on_weight(lambda tensor: setattr(tensor, "data_type", 0)),
    "dtype_99": on_weight(lambda tensor: setattr(tensor, "data_type", 99)),
    "dtype_negative": on_weight(lambda tensor: setattr(tensor, "data_type", -1)),
    "dtype_string": on_weight(lambda tensor: setattr(tensor, "data_type", TensorProto.STRING)),
    "dtype_double": on_weight(lambda tensor: setattr(tensor, "data_type", TensorProto.DOUBLE)),
    "dtype_int32": on_weight(lambda tensor: setattr(tensor, "data_type", TensorProto.INT32)),
    "dtype_int4": on_weight(lambda tensor: setattr(tensor, "data_type", TensorProto.INT4)),
    "dims_negative": on_weight(set_dims(-1, 3)),
    "dims_1e12": on_weight(set_dims(10**12)),
    "dims_wrap_around": on_weight(set_dims(2**32, 2**32)),
    "dims_zero_of_huge": on_weight(set_dims(0, 2**62, 2**62)),
    "dims_none": on_weight(set_dims()),
    "dims_zero": on_weight(set_dims(0)),
    "dims_100": on_weight(set_dims(*[1] * 100)),
    "values_twice": on_weight(lambda tensor: tensor.float_data.extend([1.0, 2.0])),
    "values_none": on_weight(lambda tensor: tensor.ClearField("raw_data")),
    "values_short": on_weight(_shrink_raw),
    "values_of_strings": on_weight(lambda tensor: (tensor.ClearField("raw_data"), tensor.string_data.append(b"\xff"))),
    "values_nan": on_weight(lambda tensor: setattr(tensor, "raw_data", b"\xff" * len(tensor.raw_data))),
    "values_zero": on_weight(lambda tensor: setattr(tensor, "raw_data", bytes(len(tensor.raw_data)))),
    "input_dangling": on_node(lambda node: node.input.extend(["nothing-makes-this"])),
    "input_replaced": on_node(lambda node: node.input.__setitem__(slice(0, 1), ["nothing-makes-this"])),
    "inputs_none": on_node(lambda node: node.ClearField("input")),
    "inputs_many": on_node(lambda node: node.input.extend([""] * 1000)),
    "outputs_none": on_node(lambda node: node.ClearField("output")),
    "outputs_empty": on_node(lambda node: node.output.__setitem__(slice(0, 1), [""])),
    "outputs_many": on_node(lambda node: node.output.extend(f"more-{i}" for i in range(1000))),
    "attributes_none": on_node(lambda node: node.ClearField("attribute")),
    "attributes_none_anywhere": on_model(lambda model: [node.ClearField("attribute") for node in model.graph.node]),
    "attributes_of_other_types": on_model(lambda model: [_retype_attributes(node) for node in model.graph.node]),
    "attributes_without_value": on_node(_attribute_without_value),
    "constants_empty": on_model(lambda model: [model.graph.node.add(op_type="Constant", output=["k"])]),
    "graph_inputs_none": on_model(lambda model: model.graph.ClearField("input")),
    "graph_outputs_none": on_model(lambda model: model.graph.ClearField("output")),
    "graph_outputs_twice": on_model(lambda model: model.graph.output.extend([model.graph.output[0]])),
    "graph_inputs_twice": on_model(lambda model: model.graph.input.extend([model.graph.input[0]])),
    "graph_nodes_none": on_model(lambda model: model.graph.ClearField("node")),
    "graph_none": on_model(lambda model: model.ClearField("graph")),
    "initializers_none": on_model(lambda model: model.graph.ClearField("initializer")),
    "initializer_twice": on_model(lambda model: model.graph.initializer.extend([model.graph.initializer[0]])),
    "initializer_is_input": on_model(lambda model: model.graph.input.add(name=model.graph.initializer[0].name)),
    "initializer_is_output": on_model(
        lambda model: model.graph.node[0].output.__setitem__(0, model.graph.initializer[0].name)
    ),
    "sparse": on_model(_sparse),
    "fill_1e9": on_model(lambda model: _fill(model, 10**9)),
    "fill_1e13": on_model(lambda model: _fill(model, 10**13)),
    "loop_endless": on_model(_endless),
    "cycle": on_model(_cycle),
    "ring": on_model(_identity_ring),
    "chain": on_model(_chain),
    "bodies_10_deep": on_model(lambda model: nested(model, 10)),
    "bodies_30_deep": on_model(lambda model: nested(model, 30)),
    "types_40_deep": on_model(_deep_type),
    "function_recursive": on_model(_function),
    "training_info": on_model(_training),
    "metadata_huge": on_model(lambda model: model.metadata_props.add(key="k" * 10**6, value="v" * 10**7)),
    "input_1e12": on_input(1, 10**12),
    "input_1e9": on_input(1, 10**9),
    "input_negative": on_input(1, -5),
    "input_of_no_axes": on_input(),
    "input_of_strings": on_input(1, elem_type=TensorProto.STRING),
    "input_of_bfloat16": on_input(1, 1, elem_type=TensorProto.BFLOAT16),
    "input_of_type_99": on_input(1, elem_type=99),
    "input_without_type": on_model(lambda model: model.graph.input[0].ClearField("type")),
    "output_without_type": on_model(lambda model: model.graph.output[0].ClearField("type")),
    "output_of_strings": on_model(lambda model: setattr(model.graph.output[0].type.tensor_type, "elem_type", 8)),
}


def apply(change: Change, model: ModelProto, rng: random.Random, path: Path) -> None:
    """Change the model and write it; names that stand for bytes that are not UTF-8 become those."""
    change(model, rng)
    path.write_bytes(model.SerializeToString().replace(PLACEHOLDER.encode(), NOT_UTF8))

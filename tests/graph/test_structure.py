"""A protobuf that is not a valid graph is refused with its error, before a step reads it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, parser

from artifacts.errors import StepError
from artifacts.graph.model_file import load_graph
from artifacts.graph.structure import check_strings, check_structure

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
{
  one = Constant <value_float: float = 1.0> ()
  a = MatMul(x, w)
  b = Cast <to: int = 1> (a)
  y = Add(b, one)
}
"""


def small() -> ModelProto:
    return parser.parse_model(TEXT)


def node(model: ModelProto, op_type: str) -> NodeProto:
    found: NodeProto = next(each for each in model.graph.node if each.op_type == op_type)
    return found


def opset(model: ModelProto, domain: str, version: int) -> None:
    model.opset_import.append(helper.make_opsetid(domain, version))


def call_itself(model: ModelProto) -> None:
    opset(model, "own", 1)
    for name, called in (("f", "g"), ("g", "f")):
        body = helper.make_node(called, ["a"], ["b"], domain="own")
        model.functions.append(helper.make_function("own", name, ["a"], ["b"], [body], model.opset_import))


def bodies_without_value(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("If", ["x"], ["z"]))
    for name in ("then_branch", "else_branch"):
        model.graph.node[-1].attribute.add(name=name, type=AttributeProto.GRAPH)


def graph_beside_a_tensor(model: ModelProto) -> None:
    attribute = node(model, "Cast").attribute[0]
    attribute.g.CopyFrom(GraphProto(name="hidden"))


def test_a_sound_model_passes() -> None:
    check_structure(small())


def test_every_model_of_the_tests_passes(places_model: ModelProto) -> None:
    check_structure(places_model)


OPSET = "the model: opset of 'ai.onnx' must be from 1 to 2147483647"


@pytest.mark.parametrize(
    ("spoil", "fact"),
    [
        (lambda m: m.opset_import[0].ClearField("version"), f"{OPSET}, got 0"),
        (lambda m: setattr(m.opset_import[0], "version", -1), f"{OPSET}, got -1"),
        (lambda m: opset(m, "", 2**62), f"{OPSET}, got 4611686018427387904"),
        (lambda m: opset(m, "ai.onnx", 16), "the model imports opsets 17 and 16 of 'ai.onnx'"),
        (
            lambda m: setattr(m.opset_import[0], "domain", "other"),
            "node 'one' (Constant): no opset of its domain 'ai.onnx' is imported",
        ),
        (
            lambda m: setattr(node(m, "Add"), "domain", "com.microsoft"),
            "node 'y' (Add): no opset of its domain 'com.microsoft' is imported",
        ),
        (lambda m: node(m, "Add").ClearField("op_type"), "node 'y' (): has no op type"),
        (lambda m: node(m, "Add").ClearField("output"), "node '' (Add): has no outputs"),
        (lambda m: node(m, "MatMul").input.pop(), "node 'a' (MatMul): has 1 inputs, needs 2"),
        (lambda m: node(m, "MatMul").input.extend("abc"), "node 'a' (MatMul): has 5 inputs, needs 2"),
        (lambda m: node(m, "MatMul").output.append("more"), "node 'a, more' (MatMul): has 2 outputs, needs 1"),
        (lambda m: node(m, "MatMul").input.__setitem__(1, ""), "node 'a' (MatMul): a required input is missing"),
        (lambda m: node(m, "Cast").ClearField("attribute"), "node 'b' (Cast): has no attribute 'to'"),
        (lambda m: node(m, "Constant").ClearField("attribute"), "node 'one' (Constant): has 0 values, needs one"),
        (
            lambda m: node(m, "Cast").attribute.append(node(m, "Cast").attribute[0]),
            "node 'b' (Cast): has the attribute 'to' twice",
        ),
        (
            lambda m: setattr(node(m, "Cast").attribute[0], "type", AttributeProto.STRING),
            "node 'b' (Cast): attribute 'to' is of type STRING, needs INT",
        ),
        (graph_beside_a_tensor, "node 'b' (Cast): attribute 'to' of type INT has g"),
        (bodies_without_value, "node 'z' (If): attribute 'then_branch' of type GRAPH has no value"),
        (lambda m: node(m, "MatMul").output.__setitem__(0, "b"), "two values of graph 'small' are called 'b'"),
        (lambda m: node(m, "MatMul").output.__setitem__(0, "w"), "two values of graph 'small' are called 'w'"),
        (
            lambda m: m.graph.initializer.append(m.graph.initializer[0]),
            "two initializers of graph 'small' are called 'w'",
        ),
        (lambda m: m.graph.input.append(m.graph.input[0]), "two inputs of graph 'small' are called 'x'"),
        (lambda m: m.graph.output.append(m.graph.output[0]), "two outputs of graph 'small' are called 'y'"),
        (lambda m: m.graph.initializer[0].ClearField("name"), "one of the initializers of graph 'small' has no name"),
        (
            lambda m: node(m, "MatMul").input.__setitem__(0, "y"),
            "node '': depends on its own output",
        ),
        (lambda m: m.graph.input[0].ClearField("type"), "input 'x': has no type"),
        (lambda m: m.graph.output[0].ClearField("type"), "output 'y': has no type"),
        (call_itself, "function 'f': calls itself, directly or through other functions"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 99), "tensor 'w': data type 99 is unknown"),
    ],
)
def test_an_invalid_graph_is_refused_with_the_name_of_its_part(
    spoil: Callable[[ModelProto], object], fact: str, tmp_path: Path
) -> None:
    model = small()
    spoil(model)
    with pytest.raises(StepError) as raised:
        check_structure(model)
    assert raised.value.fact == fact
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(StepError) as raised:
        load_graph(tmp_path / "m.onnx")
    assert raised.value.fact == f"m.onnx: {fact}"


def test_an_error_in_a_subgraph_is_found_too(places_model: ModelProto) -> None:
    body = next(each.g for each in places_model.graph.node[-1].attribute if each.name == "else_branch")
    del body.node[-1].input[1]
    with pytest.raises(StepError, match=r"node 'else_out' \(Mul\): has 1 inputs, needs 2"):
        check_structure(places_model)


def test_an_initializer_may_be_an_input_and_nodes_may_be_in_any_order() -> None:
    model = small()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))
    nodes = [NodeProto.FromString(each.SerializeToString()) for each in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    check_structure(model)


def test_an_op_that_onnx_does_not_define_is_left_to_the_runtime() -> None:
    model = small()
    opset(model, "com.microsoft", 1)
    model.graph.node.append(helper.make_node("MatMulNBits", ["b"], ["q"], domain="com.microsoft"))
    model.graph.node.append(helper.make_node("SimplifiedLayerNormalization", ["b"], ["r"]))
    check_structure(model)


MARK = "mark-of-the-test"

PLACES: dict[str, Callable[[ModelProto], object]] = {
    "producer": lambda m: setattr(m, "producer_name", MARK),
    "opset domain": lambda m: m.opset_import.append(helper.make_opsetid(MARK, 1)),
    "metadata": lambda m: m.metadata_props.add(key="a", value=MARK),
    "graph": lambda m: setattr(m.graph, "name", MARK),
    "node": lambda m: setattr(m.graph.node[0], "name", MARK),
    "node input": lambda m: m.graph.node[0].input.append(MARK),
    "node output": lambda m: m.graph.node[0].output.append(MARK),
    "op": lambda m: setattr(m.graph.node[0], "op_type", MARK),
    "domain": lambda m: setattr(m.graph.node[0], "domain", MARK),
    "node's note": lambda m: setattr(m.graph.node[0], "doc_string", MARK),
    "attribute": lambda m: setattr(m.graph.node[-1].attribute[0], "name", MARK),
    "node in a body": lambda m: setattr(m.graph.node[-1].attribute[0].g.node[0], "name", MARK),
    "tensor": lambda m: setattr(m.graph.initializer[0], "name", MARK),
    "location": lambda m: m.graph.initializer[0].external_data.add(key="location", value=MARK),
    "input": lambda m: setattr(m.graph.input[0], "name", MARK),
    "open dimension": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", MARK),
    "function": lambda m: m.functions.append(
        helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"], MARK)], m.opset_import)
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_string_that_is_not_utf8_is_refused_wherever_it_is(place: str, places_model: ModelProto) -> None:
    PLACES[place](places_model)
    check_strings(places_model)
    broken = places_model.SerializeToString().replace(MARK.encode(), random.Random(0).randbytes(15) + b"\xff")
    with pytest.raises(StepError, match="which is not UTF-8"):
        check_strings(ModelProto.FromString(broken))

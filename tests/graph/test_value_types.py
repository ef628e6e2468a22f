"""Types come from the schema of each op, not from what a file declares."""

from __future__ import annotations

import pytest
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper

from artifacts.errors import StepError
from artifacts.graph.value_types import Kind, Value, float_groups, output_types, schema_of, tensor_type, without_shape

OPSETS = {"": 17}
FLOAT, FLOAT16, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL


def value(elem_type: int) -> Value:
    return Value("v", tensor_type(elem_type), Kind.SIGNAL, GraphProto())


def types_of(node: NodeProto, *elem_types: int | None) -> list[int]:
    given = [None if elem_type is None else tensor_type(elem_type) for elem_type in elem_types]
    found = output_types(node, schema_of(node, OPSETS), given, OPSETS, ir_version=8)
    return [output.tensor_type.elem_type for output in found]


@pytest.mark.parametrize(
    ("node", "inputs", "outputs"),
    [
        (helper.make_node("Mul", ["a", "a"], ["y"]), [FLOAT16, FLOAT16], [FLOAT16]),
        (helper.make_node("Cast", ["a"], ["y"], to=FLOAT), [INT64], [FLOAT]),
        (helper.make_node("Shape", ["a"], ["y"]), [FLOAT16], [INT64]),
        (helper.make_node("Less", ["a", "b"], ["y"]), [FLOAT, FLOAT], [BOOL]),
        (helper.make_node("TopK", ["a", "k"], ["y", "i"]), [FLOAT16, INT64], [FLOAT16, INT64]),
        (helper.make_node("ConstantOfShape", ["a"], ["y"]), [INT64], [FLOAT]),
        (helper.make_node("Clip", ["a", "", "b"], ["y"]), [FLOAT16, None, FLOAT16], [FLOAT16]),
        (helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=4), [FLOAT16] * 3, [0, FLOAT16]),
    ],
)
def test_outputs_get_the_type_that_the_schema_says(node: NodeProto, inputs: list[int], outputs: list[int]) -> None:
    assert types_of(node, *inputs) == outputs


def test_an_op_that_does_not_take_its_inputs_is_named() -> None:
    with pytest.raises(StepError, match=r"node 'product': Mul cannot be typed: .*inconsistent type"):
        types_of(helper.make_node("Mul", ["a", "b"], ["y"], "product"), FLOAT, FLOAT16)


def test_an_op_of_another_domain_is_refused() -> None:
    with pytest.raises(StepError, match=r"'com\.microsoft:Gelu' is not an op of ONNX"):
        schema_of(helper.make_node("Gelu", ["a"], ["y"], domain="com.microsoft"), {"": 17, "com.microsoft": 1})


@pytest.mark.parametrize(
    ("node", "inputs", "groups"),
    [
        (helper.make_node("Add", ["a", "b"], ["y"]), [FLOAT, FLOAT16], [([0, 1], True)]),
        (helper.make_node("Pow", ["a", "b"], ["y"]), [FLOAT, FLOAT16], [([0], True), ([1], True)]),
        (helper.make_node("Range", ["a", "b", "c"], ["y"]), [FLOAT, FLOAT16, FLOAT], [([0, 1, 2], False)]),
        (helper.make_node("Concat", ["a", "b", "c"], ["y"], axis=0), [FLOAT, FLOAT16, FLOAT], [([0, 1, 2], True)]),
        (helper.make_node("Where", ["c", "a", "b"], ["y"]), [BOOL, FLOAT16, FLOAT], [([1, 2], True)]),
        (helper.make_node("Resize", ["a", "", "s"], ["y"]), [FLOAT16, None, FLOAT], [([0], True), ([2], False)]),
        (helper.make_node("Gather", ["a", "i"], ["y"]), [FLOAT16, INT64], [([0], True)]),
    ],
)
def test_inputs_that_must_agree_are_grouped(
    node: NodeProto, inputs: list[int | None], groups: list[tuple[list[int], bool]]
) -> None:
    values = [None if elem_type is None else value(elem_type) for elem_type in inputs]
    assert float_groups(schema_of(node, OPSETS), values) == groups


def test_a_shape_is_left_out_of_a_copy_only() -> None:
    given = helper.make_tensor_type_proto(FLOAT, [1, 2])
    assert without_shape(given) == tensor_type(FLOAT)
    assert given.tensor_type.HasField("shape")
    assert without_shape(TypeProto()) == TypeProto()

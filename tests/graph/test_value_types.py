"""Types come from the schema of each op, and shape arithmetic is told from features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.tensor_content import TensorReader
from artifacts.graph.value_types import (
    Kind,
    Value,
    check_exact,
    float_groups,
    is_sink,
    output_kind,
    output_types,
    schema_of,
    tensor_type,
    without_shape,
)

OPSETS = {"": 17}
FLOAT, FLOAT16, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL


def feature(elem_type: int) -> Value:
    return Value("v", tensor_type(elem_type), Kind.FEATURE, GraphProto())


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
    values = [None if elem_type is None else feature(elem_type) for elem_type in inputs]
    assert float_groups(schema_of(node, OPSETS), values) == groups


def test_a_shape_is_left_out_of_a_copy_only() -> None:
    given = helper.make_tensor_type_proto(FLOAT, [1, 2])
    assert without_shape(given) == tensor_type(FLOAT)
    assert given.tensor_type.HasField("shape")
    assert without_shape(TypeProto()) == TypeProto()


CONSTANT, COUNT, SIGNAL = Kind.CONSTANT, Kind.LENGTH, Kind.FEATURE


def value(kind: Kind, elem_type: int = TensorProto.FLOAT16, *, numbers: object = None) -> Value:
    tensor = None if numbers is None else numpy_helper.from_array(np.array(numbers, np.float16))
    node = NodeProto(name="make_v")
    return Value("v", tensor_type(elem_type), kind, GraphProto(), node, tensor)


INTEGER = value(COUNT, TensorProto.INT64)
FIXED_INTEGER = value(CONSTANT, TensorProto.INT64)
TABLE = value(CONSTANT, numbers=[1, 2, 3])
NUMBER = value(CONSTANT, numbers=2)


@pytest.mark.parametrize(
    ("op_type", "inputs", "kind"),
    [
        ("Cast", [INTEGER], COUNT),
        ("Cast", [FIXED_INTEGER], CONSTANT),
        ("Add", [value(COUNT), NUMBER], COUNT),
        ("Mul", [value(COUNT), TABLE], COUNT),
        ("Mul", [value(SIGNAL), value(COUNT)], SIGNAL),
        ("Expand", [value(SIGNAL), INTEGER], SIGNAL),
        ("Gather", [TABLE, INTEGER], Kind.TABLE),
        ("Slice", [TABLE, INTEGER, INTEGER], Kind.TABLE),
        ("MatMul", [value(Kind.TABLE), TABLE], Kind.TABLE),
        ("Mul", [value(Kind.TABLE), value(COUNT)], COUNT),
        ("Add", [value(Kind.TABLE), value(SIGNAL)], SIGNAL),
        ("CastLike", [INTEGER, value(SIGNAL)], COUNT),
        ("Where", [INTEGER, NUMBER, NUMBER], COUNT),
        ("ConstantOfShape", [INTEGER], COUNT),
        ("RandomNormal", [], SIGNAL),
        ("Constant", [], CONSTANT),
    ],
)
def test_a_float_is_a_length_until_it_is_combined_with_features(op_type: str, inputs: list[Value], kind: Kind) -> None:
    assert output_kind(NodeProto(op_type=op_type), inputs, is_float=True) is kind


def test_an_integer_is_never_a_feature() -> None:
    assert output_kind(NodeProto(op_type="ArgMax"), [value(SIGNAL)], is_float=False) is COUNT


@pytest.mark.parametrize(
    ("op_type", "inputs", "gives_float", "sink"),
    [
        ("Cast", [value(COUNT)], False, True),
        ("Less", [value(COUNT), NUMBER], False, True),
        ("Less", [value(COUNT), value(SIGNAL)], False, False),
        ("Cast", [value(SIGNAL)], False, False),
        ("Cast", [NUMBER], False, True),
        ("Greater", [value(Kind.TABLE), NUMBER], False, True),
        ("Shape", [value(COUNT)], False, False),
        ("Add", [value(COUNT), NUMBER], True, False),
    ],
)
def test_shape_arithmetic_ends_where_lengths_become_integers(
    op_type: str, inputs: list[Value], gives_float: bool, sink: bool
) -> None:
    assert is_sink(NodeProto(op_type=op_type), inputs, gives_float=gives_float) is sink


def check(numbers: object, elem_type: int = TensorProto.FLOAT16) -> None:
    constant = value(CONSTANT, elem_type, numbers=numbers)
    total = value(COUNT)
    total.inputs = (value(COUNT), constant)
    with TensorReader(Path("model.onnx")) as reader:
        check_exact([total, constant], reader)


@pytest.mark.parametrize("number", [0, 1, -3, 0.5, 0.0625, 1.5, 160, 2048, -10240, np.inf, [1, 2, 0.25]])
def test_short_numbers_cannot_have_been_rounded(number: object) -> None:
    check(number)


@pytest.mark.parametrize("number", [0.1, 1 / 3, 1 / 160, -0.7, 1e-5, 2.2, 1999, [1, 2, 0.1]])
def test_a_number_that_fills_fp16_may_have_been_rounded(number: object) -> None:
    with pytest.raises(StepError, match=r"'v': .* decides an integer and may have been rounded") as caught:
        check(number)
    assert caught.value.fix == "add 'make_v' to keep_fp32_nodes of convert_fp16"


def test_an_fp32_constant_was_not_rounded() -> None:
    check(0.1, TensorProto.FLOAT)

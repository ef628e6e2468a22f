"""Numbers made of integers alone are told from features, and what rounding could have spoilt is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.length_cone import check_exact, is_sink, output_kind
from artifacts.graph.tensor_reader import TensorReader
from artifacts.graph.value_types import Kind, Value, tensor_type

CONSTANT, COUNT, SIGNAL = Kind.CONSTANT, Kind.COUNT, Kind.SIGNAL


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
        ("Gather", [TABLE, INTEGER], CONSTANT),
        ("Slice", [TABLE, INTEGER, INTEGER], CONSTANT),
        ("Where", [INTEGER, NUMBER, NUMBER], COUNT),
        ("ConstantOfShape", [INTEGER], COUNT),
        ("RandomNormal", [], SIGNAL),
        ("Constant", [], CONSTANT),
    ],
)
def test_a_float_is_a_count_until_it_meets_features(op_type: str, inputs: list[Value], kind: Kind) -> None:
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
        ("Shape", [value(COUNT)], False, False),
        ("Add", [value(COUNT), NUMBER], True, False),
    ],
)
def test_the_cone_ends_where_counts_become_integers(
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
    assert caught.value.fix == "add 'make_v' to node_block_list of convert_fp16"


def test_what_stayed_fp32_was_not_rounded() -> None:
    check(0.1, TensorProto.FLOAT)

"""Which type each node of a half-converted graph computes in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, parser

from artifacts.errors import StepError
from artifacts.graph.type_plan import agreed_type, plan_types
from artifacts.graph.value_types import Kind, Value, tensor_type

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '
ONE, TWO = 15360, 16384  # their bits in fp16


def value(kind: Kind, elem_type: int, size: int | None = None) -> Value:
    tensor = None if size is None else TensorProto(data_type=elem_type, dims=[size])
    return Value("v", tensor_type(elem_type), kind, GraphProto(), None, tensor)


SIGNAL16, SIGNAL32 = value(Kind.FEATURE, FLOAT16), value(Kind.FEATURE, FLOAT)
COUNT16, COUNT32 = value(Kind.LENGTH, FLOAT16), value(Kind.LENGTH, FLOAT)
WEIGHT16, WEIGHT32 = value(Kind.CONSTANT, FLOAT16, 4), value(Kind.CONSTANT, FLOAT, 4)
NUMBER16, NUMBER32 = value(Kind.CONSTANT, FLOAT16, 1), value(Kind.CONSTANT, FLOAT, 1)


@pytest.mark.parametrize(
    ("values", "agreed"),
    [
        ([SIGNAL16, WEIGHT16], FLOAT16),
        ([SIGNAL32, WEIGHT16], FLOAT16),
        ([SIGNAL16, WEIGHT32], FLOAT),
        ([SIGNAL32, NUMBER16], FLOAT),
        ([SIGNAL16, NUMBER32], FLOAT16),
        ([SIGNAL16, SIGNAL32], FLOAT16),
        ([SIGNAL32, SIGNAL32], FLOAT),
        ([SIGNAL16, COUNT32], FLOAT16),
        ([SIGNAL32, COUNT16], FLOAT),
        ([COUNT16, NUMBER16], FLOAT),
        ([COUNT32, WEIGHT16], FLOAT),
        ([WEIGHT16, NUMBER16], FLOAT16),
        ([WEIGHT16, NUMBER32], FLOAT),
    ],
)
def test_weights_decide_then_features_then_counts(values: list[Value], agreed: int) -> None:
    assert agreed_type(values) == agreed
    assert agreed_type(values[::-1]) == agreed


def types(text: str) -> dict[str, int]:
    """The element type that each value of the model is planned to have."""
    return {value.name: value.elem_type for value in plan_types(parser.parse_model(HEADER + text)).values}


def wanted(text: str) -> dict[str, set[int]]:
    """The types that readers want of each value."""
    plan = plan_types(parser.parse_model(HEADER + text))
    return {value.name: {use.wanted for use in value.uses} for value in plan.values}


def test_declared_types_of_inner_values_are_ignored() -> None:
    model = parser.parse_model(HEADER + "(float16[2] x) => (float16[2] y) { a = Neg(x) y = Neg(a) }")
    model.graph.value_info.append(helper.make_tensor_value_info("a", FLOAT, [2]))
    assert [value.elem_type for value in plan_types(model).values] == [FLOAT16] * 3


def test_a_type_is_carried_through_the_ops_behind_it() -> None:
    text = f"""(float16[2] x, int64[2] n) => (float16[2] y) <float16[2] w = {{{ONE}, {TWO}}}> {{
      count = Cast<to=1>(n)
      more = Add(count, count)
      scaled = Mul(x, w)
      y = Mul(scaled, more)
    }}"""
    assert types(text) == {"x": FLOAT16, "n": TensorProto.INT64, "w": FLOAT16} | {
        "count": FLOAT,
        "more": FLOAT,
        "scaled": FLOAT16,
        "y": FLOAT16,
    }
    assert wanted(text) == {"x": {FLOAT16}, "n": set(), "w": {FLOAT16}} | {
        "count": {FLOAT},
        "more": {FLOAT16},
        "scaled": {FLOAT16},
        "y": {FLOAT16},
    }


def test_an_op_without_fp16_is_fed_fp32() -> None:
    text = f"(float16 x) => (float[N] y) <float16 one = {{{ONE}}}> {{ y = Range(one, x, one) }}"
    assert wanted(text)["x"] == wanted(text)["one"] == {FLOAT}


def test_a_blocked_node_keeps_its_weights() -> None:
    text = "(float16[2] x) => (float16[2] y) <float[2] v = {1, 2}> { a = Mul(x, v) y = Neg(a) }"
    assert wanted(text) == {"v": {FLOAT}, "x": {FLOAT}, "a": {FLOAT}, "y": {FLOAT16}}


def test_rows_of_a_table_are_weights_not_counts() -> None:
    text = f"""(float16[B,2] x, int64[B] ids) => (float16[B,2] y) <float16[2,2] table = {{0, {ONE}, {TWO}, 0}}> {{
      rows = Gather(table, ids)
      y = Add(x, rows)
    }}"""
    assert wanted(text)["table"] == wanted(text)["rows"] == {FLOAT16}


def test_a_number_in_an_attribute_is_not_a_weight() -> None:
    text = "(float16[2] x) => (float16[2] y) { half = Constant<value_float = 0.5>() y = Mul(x, half) }"
    assert wanted(text)["half"] == {FLOAT16}


def test_branches_of_an_if_agree() -> None:
    text = """(float16[2] x, float[2] z, bool yes) => (float16[2] y) {
      y = If (yes) < then_branch = t () => (float16[2] u) { u = Neg(x) },
                     else_branch = e () => (float[2] v) { v = Neg(z) } >
    }"""
    assert types(text)["y"] == FLOAT16
    assert wanted(text)["v"] == {FLOAT16}


def test_a_carried_value_leaves_the_body_as_it_entered() -> None:
    text = """(float16[2] x, float[2] z, int64 trips, bool yes) => (float16[2] y) {
      y = Loop (trips, yes, x) < body = b (int64 i, bool go, float16[2] state) => (bool on, float[2] next) {
        on = Identity(go)
        sum = Neg(state)
        next = Sub(z, z)
      } >
    }"""
    assert types(text)["state"] == types(text)["sum"] == types(text)["y"] == FLOAT16
    assert wanted(text)["next"] == {FLOAT16}


def add(**fields: object) -> Callable[[ModelProto], None]:
    return lambda model: model.graph.node.append(NodeProto(name="n", output=["o"], **fields))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add(op_type="Foo", domain="com.acme"), "node 'n': 'com.acme:Foo' is not an op of ONNX"),
        (add(op_type="Neg", input=["?"]), "node 'n': nothing defines the value '?'"),
        (add(op_type="Mod", input=["x", "yes"]), "node 'n': Mod cannot be typed"),
        (lambda model: model.functions.append(FunctionProto(name="f")), "function 'f': types inside functions"),
    ],
)
def test_a_model_that_cannot_be_typed_is_refused(change: Callable[[ModelProto], None], message: str) -> None:
    model = parser.parse_model(HEADER + "(float[2] x, bool yes) => (float[2] y) { y = Neg(x) }")
    change(model)
    with pytest.raises(StepError) as caught:
        plan_types(model)
    assert caught.value.fact.startswith(message)

"""Which type each node of a graph computes in, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, parser

from artifacts.errors import StepError
from artifacts.graph.cast_repair import agreed_type
from artifacts.graph.type_plan import TypePlan, plan_types

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '
ONE, TWO = 15360, 16384  # their bits in fp16


def plan(model: ModelProto) -> TypePlan:
    return plan_types(model, agreed_type)


def types(text: str) -> dict[str, int]:
    """The element type that each value of the model is planned to have."""
    return {value.name: value.elem_type for value in plan(parser.parse_model(HEADER + text)).values}


def wanted(text: str) -> dict[str, set[int]]:
    """The types that readers want of each value."""
    values = plan(parser.parse_model(HEADER + text)).values
    return {value.name: {use.wanted for use in value.uses} for value in values}


def test_declared_types_of_inner_values_are_ignored() -> None:
    model = parser.parse_model(HEADER + "(float16[2] x) => (float16[2] y) { a = Neg(x) y = Neg(a) }")
    model.graph.value_info.append(helper.make_tensor_value_info("a", FLOAT, [2]))
    assert [value.elem_type for value in plan(model).values] == [FLOAT16] * 3


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


@pytest.mark.parametrize("blocked", ["Neg", "If"])
def test_a_blocked_node_and_what_is_in_it_get_fp32(blocked: str) -> None:
    text = """(float16[2] x, bool yes) => (float[2] y) {
      y = If (yes) < then_branch = t () => (float[2] u) { a = Neg(x) u = Neg(a) },
                     else_branch = e () => (float[2] v) { b = Neg(x) v = Neg(b) } >
    }"""
    values = plan_types(parser.parse_model(HEADER + text), agreed_type, lambda node: node.op_type == blocked).values
    assert {value.name for value in values if value.is_blocked} >= {"a", "u", "b", "v"}
    assert {use.wanted for value in values for use in value.uses if value.is_float} == {FLOAT}


def test_a_sparse_tensor_is_a_constant_that_stays_as_it_is() -> None:
    model = parser.parse_model(HEADER + "(float16[2] x) => (float16[2] y) { y = Mul(x, w) }")
    numbers, place = helper.make_tensor("w", FLOAT, [1], [2]), helper.make_tensor("at", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(numbers, place, [2]))
    (weight,) = (value for value in plan(model).values if value.name == "w")
    assert weight.is_blocked
    assert {use.wanted for use in weight.uses} == {FLOAT16}


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
        (lambda model: model.functions.append(FunctionProto(name="f")), "function 'f': functions are not converted"),
    ],
)
def test_a_model_that_cannot_be_typed_is_refused(change: Callable[[ModelProto], None], message: str) -> None:
    model = parser.parse_model(HEADER + "(float[2] x, bool yes) => (float[2] y) { y = Neg(x) }")
    change(model)
    with pytest.raises(StepError) as caught:
        plan(model)
    assert caught.value.fact.startswith(message)

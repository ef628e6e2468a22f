"""Nodes come after what they read, and otherwise stay where they are."""

from __future__ import annotations

import random

import pytest
from onnx import ModelProto, helper, parser

from artifacts.errors import StepError
from artifacts.graph.node_order import read_names, sort_nodes

DIAMOND = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) {
  a = Neg(x)
  b = Exp(a)
  c = Sqrt(a)
  y = Add(b, c)
}"""

CAPTURED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, bool yes) => (float[2] y) {
  y = If (yes) <
    then_branch = t () => (float[2] u) { u = Exp(inner) inner = Neg(late) },
    else_branch = e () => (float[2] v) { v = Identity(late) }
  >
  late = Neg(x)
}"""


def outputs(model: ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node]


def test_sorted_nodes_stay_as_they_are() -> None:
    model = parser.parse_model(DIAMOND)
    sort_nodes(model.graph)
    assert outputs(model) == ["a", "b", "c", "y"]


def test_every_shuffle_gives_an_order_in_which_nodes_follow_what_they_read() -> None:
    for seed in range(20):
        model = parser.parse_model(DIAMOND)
        nodes = list(parser.parse_model(DIAMOND).graph.node)
        random.Random(seed).shuffle(nodes)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        sort_nodes(model.graph)
        order = outputs(model)
        assert order[0] == "a"
        assert order[-1] == "y"
        assert sorted(order) == ["a", "b", "c", "y"]


def test_what_a_body_reads_comes_before_its_node_and_bodies_are_sorted_too() -> None:
    model = parser.parse_model(CAPTURED)
    sort_nodes(model.graph)
    assert outputs(model) == ["late", "y"]
    then_branch = model.graph.node[1].attribute[0].g
    assert [node.output[0] for node in then_branch.node] == ["inner", "u"]


def test_a_circle_is_an_error_that_names_a_node() -> None:
    model = parser.parse_model(DIAMOND)
    circle = [helper.make_node("Neg", ["q"], ["p"], "first"), helper.make_node("Neg", ["p"], ["q"], "second")]
    model.graph.node.extend(circle)
    with pytest.raises(StepError, match="node 'first': reads, through others, what it writes itself"):
        sort_nodes(model.graph)


OWN_NAMES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, bool yes) => (float[2] y) {
  chosen = If (yes) <
    then_branch = t () => (float[2] u) <float[2] k = {1, 2}> {
      i = Exp(x)
      u = If (yes) <
        then_branch = tt () => (float[2] uu) { uu = Mul(i, k) },
        else_branch = te () => (float[2] i) { }
      >
    },
    else_branch = e () => (float[2] i) { i = Neg(later) }
  >
  i = Neg(chosen)
  k = Neg(i)
  later = Neg(x)
  y = Add(i, k)
}"""


def test_names_that_bodies_give_to_values_of_their_own_are_no_reads() -> None:
    model = parser.parse_model(OWN_NAMES)
    assert set(read_names(model.graph.node[0])) == {"yes", "x", "later"}
    sort_nodes(model.graph)
    assert outputs(model) == ["later", "chosen", "i", "k", "y"]


def test_what_enters_a_loop_is_no_read() -> None:
    body = helper.make_graph(
        [helper.make_node("Mul", ["state", "w"], ["next"])],
        "body",
        [helper.make_empty_tensor_value_info(name) for name in ("i", "on", "state")],
        [helper.make_empty_tensor_value_info(name) for name in ("on", "next")],
    )
    assert list(read_names(helper.make_node("Loop", ["n", "", "x"], ["y"], body=body))) == ["n", "", "x", "w"]

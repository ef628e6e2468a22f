"""Nodes are sorted behind their producers, and otherwise keep their order."""

from __future__ import annotations

import random

import pytest
from onnx import ModelProto, helper, parser

from artifacts.errors import StepError
from artifacts.graph.nodes import consumed_names, topological_sort

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
    topological_sort(model.graph)
    assert outputs(model) == ["a", "b", "c", "y"]


def test_any_shuffle_is_sorted_so_that_nodes_follow_their_producers() -> None:
    for seed in range(20):
        model = parser.parse_model(DIAMOND)
        nodes = list(parser.parse_model(DIAMOND).graph.node)
        random.Random(seed).shuffle(nodes)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        topological_sort(model.graph)
        order = outputs(model)
        assert order[0] == "a"
        assert order[-1] == "y"
        assert sorted(order) == ["a", "b", "c", "y"]


def test_values_of_a_subgraph_come_before_its_node_and_subgraphs_are_sorted_too() -> None:
    model = parser.parse_model(CAPTURED)
    topological_sort(model.graph)
    assert outputs(model) == ["late", "y"]
    then_branch = model.graph.node[1].attribute[0].g
    assert [node.output[0] for node in then_branch.node] == ["inner", "u"]


def test_a_cycle_is_an_error_that_names_a_node() -> None:
    model = parser.parse_model(DIAMOND)
    cycle = [helper.make_node("Neg", ["q"], ["p"], "first"), helper.make_node("Neg", ["p"], ["q"], "second")]
    model.graph.node.extend(cycle)
    with pytest.raises(StepError, match="node 'first': depends on its own output"):
        topological_sort(model.graph)


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


def test_values_that_a_subgraph_defines_are_not_consumed() -> None:
    model = parser.parse_model(OWN_NAMES)
    assert set(consumed_names(model.graph.node[0])) == {"yes", "x", "later"}
    topological_sort(model.graph)
    assert outputs(model) == ["later", "chosen", "i", "k", "y"]


def test_inputs_of_a_loop_s_body_are_not_consumed() -> None:
    body = helper.make_graph(
        [helper.make_node("Mul", ["state", "w"], ["next"])],
        "body",
        [helper.make_empty_tensor_value_info(name) for name in ("i", "on", "state")],
        [helper.make_empty_tensor_value_info(name) for name in ("on", "next")],
    )
    assert list(consumed_names(helper.make_node("Loop", ["n", "", "x"], ["y"], body=body))) == ["n", "", "x", "w"]

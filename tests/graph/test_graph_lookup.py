"""Opsets, attributes and free names are found in any graph, with subgraphs."""

from __future__ import annotations

import pytest
from onnx import ModelProto, helper

from artifacts.graph.graph_lookup import all_names, attribute_value, free_name, opset_version


def test_the_opset_is_that_of_onnx_s_own_domain() -> None:
    other = helper.make_opsetid("com.microsoft", 1)
    for domain in ("", "ai.onnx"):
        assert opset_version(ModelProto(opset_import=[other, helper.make_opsetid(domain, 17)])) == 17
    assert opset_version(ModelProto(opset_import=[other])) == 0


def test_an_attribute_has_its_value_or_the_default() -> None:
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    assert attribute_value(node, "perm", ()) == [1, 0]
    assert attribute_value(node, "axis", -1) == -1


def test_names_are_those_of_values_tensors_and_nodes_also_in_subgraphs(places_model: ModelProto) -> None:
    places_model.graph.node[0].name = "first"
    names = all_names(places_model.graph)
    assert {"x", "y", "raw_weight", "first", "a", "in_branch", "in_else", "then_out"} <= names
    assert "new" not in names


@pytest.mark.parametrize(("numbered", "names"), [(False, ["v", "v_", "v__"]), (True, ["v", "v_2", "v_3"])])
def test_a_name_that_is_taken_gets_a_suffix(numbered: bool, names: list[str]) -> None:
    taken = {"w"}
    assert [free_name("v", taken, numbered=numbered) for _ in names] == names
    assert taken == {"w", *names}

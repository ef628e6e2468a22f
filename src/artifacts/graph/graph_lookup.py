"""Look-ups in a graph: the opset, attributes of a node, and which names are free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import helper

from artifacts.graph.nodes import subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def opset_version(model: ModelProto) -> int:
    """Return the version of ONNX's own opset that the model imports; 0 if it imports none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def attribute_value(node: NodeProto, name: str, default: Any) -> Any:
    """Return the value of the node's attribute, or `default` if the node does not have it."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def all_names(graph: GraphProto) -> set[str]:
    """Return the names of all values, tensors and nodes of the graph and of its subgraphs."""
    names = {item.name for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)}
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
        for subgraph in subgraphs(node):
            names |= all_names(subgraph)
    return names


def free_name(preferred: str, taken: set[str], *, numbered: bool = False) -> str:
    """Return `preferred` if that name is free, else `preferred` with a suffix, and add the result to `taken`.

    Suffixes are `_`, `__` and so on, or `_2`, `_3` and so on if `numbered`.
    """
    name, count = preferred, 1
    while name in taken:
        count += 1
        name = f"{preferred}_{count}" if numbered else f"{name}_"
    taken.add(name)
    return name

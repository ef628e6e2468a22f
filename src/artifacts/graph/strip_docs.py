"""Removes what exporters note down for debugging: paths and stack traces, which differ from machine to machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from artifacts.graph.node_order import bodies
from artifacts.graph.tensors import iter_tensors

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def strip_docs(model: ModelProto) -> None:
    """Clear every doc string of the model, and the metadata of its graphs, nodes, values and tensors, in place.

    The model's own `metadata_props` stay: runtimes read them.
    """
    model.ClearField("doc_string")
    for tensor in iter_tensors(model):
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    _strip_graph(model.graph)
    for function in model.functions:
        function.ClearField("doc_string")
        function.ClearField("metadata_props")
        _strip_nodes(function.node)


def _strip_graph(graph: GraphProto) -> None:
    for item in (graph, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
        for body in bodies(node):
            _strip_graph(body)

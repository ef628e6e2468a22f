"""Constants of a graph: made initializers, where quantisers look for weights, and dropped once nothing reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifacts.graph.node_order import read_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from onnx import GraphProto, TensorProto


def constants_to_initializers(graph: GraphProto, wanted: Callable[[TensorProto], bool]) -> None:
    """Turn each Constant whose `value` is wanted into an initializer of its name; external data stay where they are."""
    for node in [node for node in graph.node if node.op_type == "Constant" and node.domain in ("", "ai.onnx")]:
        if node.attribute[0].name == "value" and wanted(node.attribute[0].t):
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.node.remove(node)


def drop_unread(graph: GraphProto, names: Collection[str]) -> None:
    """Remove those of the named initializers that no node reads, bodies included, and that are no output."""
    read = {name for node in graph.node for name in read_names(node)} | {value.name for value in graph.output}
    gone = set(names) - read
    for values in (graph.initializer, graph.input, graph.value_info):
        for index in reversed([index for index, value in enumerate(values) if value.name in gone]):
            del values[index]

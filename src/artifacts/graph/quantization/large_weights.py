"""The float32 tensors that make a file large: find them with their consumers, and replace their bytes.

A tensor counts as a weight by its size alone, as in onnx_shrink_ray. Constants above some thousand elements are nearly
all weights, and the others (a table of positions) take space in the file as weights do. Initializers and Constants of
every graph of the model are searched, subgraphs included. Left alone are initializers that are inputs of their graph
too (a caller may replace them), those without consumers, and functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from artifacts.errors import StepError
from artifacts.graph.nodes import consumed_names, subgraphs
from artifacts.graph.quantization.float_model import constants_to_initializers
from artifacts.graph.tensor_content import Content, InTensor, read_all

if TYPE_CHECKING:
    from artifacts.graph.tensor_writer import Stored


@dataclass(frozen=True)
class Consumer:
    """A node, perhaps in a subgraph, and which of its inputs is the tensor."""

    node: NodeProto
    index: int


@dataclass(frozen=True)
class LargeWeight:
    """An initializer of `graph`, and all its consumers. The protobufs are parts of the model."""

    tensor: TensorProto
    graph: GraphProto
    consumers: tuple[Consumer, ...]


def large_weights(model: ModelProto, min_elements: int, nodes_to_exclude: Collection[str]) -> list[LargeWeight]:
    """Return the float32 tensors of more than `min_elements` elements that no excluded node consumes.

    The Constants among them become initializers of the same name, in place; external data stay where they are. Tensors
    that a subgraph of an excluded node consumes are excluded too. Raises StepError if there is none.
    """
    weights = list(_in_graph(model.graph, min_elements, frozenset(nodes_to_exclude)))
    if not weights:
        raise StepError(
            f"0 float32 tensors of more than {min_elements} elements to change",
            "lower min_elements, or leave a model this small as it is",
        )
    return weights


def _in_graph(graph: GraphProto, min_elements: int, excluded: frozenset[str]) -> Iterator[LargeWeight]:
    inputs = {value.name for value in graph.input}
    consuming: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(consumed_names(node)):
            consuming.setdefault(name, []).append(node)
    constants_to_initializers(graph, lambda value: _is_large(value, min_elements))
    for tensor in graph.initializer:
        nodes = consuming.get(tensor.name, [])
        free = tensor.name not in inputs and not any(node.name in excluded for node in nodes)
        if nodes and free and _is_large(tensor, min_elements):
            consumers = (consumer for node in nodes for consumer in _consumers(node, tensor.name))
            yield LargeWeight(tensor, graph, tuple(consumers))
    for node in graph.node:
        if node.name not in excluded:
            for subgraph in subgraphs(node):
                yield from _in_graph(subgraph, min_elements, excluded)


def _consumers(node: NodeProto, name: str) -> Iterator[Consumer]:
    for index, consumed in enumerate(node.input):
        if consumed == name:
            yield Consumer(node, index)
    for subgraph in subgraphs(node):
        for inner in subgraph.node:
            yield from _consumers(inner, name)


def _is_large(tensor: TensorProto, min_elements: int) -> bool:
    return tensor.data_type == TensorProto.FLOAT and prod(tensor.dims) > min_elements


def replace_contents(stored: Sequence[Stored], new: Sequence[tuple[TensorProto, Content]]) -> list[Stored]:
    """Return `stored` with the contents of `new` for the tensors of `new`.

    A tensor whose bytes are in the protobuf gets its new bytes there at once. So call this before a tensor is given
    another dtype.
    """
    by_tensor = {id(tensor): content for tensor, content in new}  # `new` references the tensors: ids are unique
    return [(located, _replace(located.tensor, old, by_tensor.get(id(located.tensor)))) for located, old in stored]


def _replace(tensor: TensorProto, old: Content, new: Content | None) -> Content:
    if new is None:
        return old
    if not isinstance(old, InTensor):
        return new
    tensor.raw_data = read_all(new)
    tensor.ClearField("float_data")
    return old

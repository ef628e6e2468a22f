"""The float32 tensors that make a file large, and which nodes read them.

A tensor counts as a weight by its size alone, as in onnx_shrink_ray: constants above some thousand elements are nearly
all weights, and what else there is among them (a table of positions) fills the file as weights do. Initializers and
Constants are looked for in every graph of the model, bodies included. Left alone are initializers that are inputs of
their graph too, which a caller may replace, those that no node reads, and functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from artifacts.errors import StepError
from artifacts.graph.constants import constants_to_initializers
from artifacts.graph.node_order import bodies, read_names


@dataclass(frozen=True)
class Reader:
    """A node, maybe in a body, and the place of the tensor among its inputs."""

    node: NodeProto
    index: int


@dataclass(frozen=True)
class LargeWeight:
    """An initializer of `graph`, and all that read it; the protobufs are those of the model."""

    tensor: TensorProto
    graph: GraphProto
    readers: tuple[Reader, ...]


def large_weights(model: ModelProto, min_elements: int, nodes_to_exclude: Collection[str]) -> list[LargeWeight]:
    """The float32 tensors of more than `min_elements` elements, but for those that an excluded node reads.

    The Constants among them become initializers of the same name, in place; external data stay where they are. What a
    body of an excluded node reads is excluded too. Raises StepError if there is none.
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
    reading: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(read_names(node)):
            reading.setdefault(name, []).append(node)
    constants_to_initializers(graph, lambda value: _is_large(value, min_elements))
    for tensor in graph.initializer:
        nodes = reading.get(tensor.name, [])
        free = tensor.name not in inputs and not any(node.name in excluded for node in nodes)
        if nodes and free and _is_large(tensor, min_elements):
            yield LargeWeight(tensor, graph, tuple(reader for node in nodes for reader in _readers(node, tensor.name)))
    for node in graph.node:
        if node.name not in excluded:
            for body in bodies(node):
                yield from _in_graph(body, min_elements, excluded)


def _readers(node: NodeProto, name: str) -> Iterator[Reader]:
    for index, given in enumerate(node.input):
        if given == name:
            yield Reader(node, index)
    for body in bodies(node):
        for inner in body.node:
            yield from _readers(inner, name)


def _is_large(tensor: TensorProto, min_elements: int) -> bool:
    return tensor.data_type == TensorProto.FLOAT and prod(tensor.dims) > min_elements

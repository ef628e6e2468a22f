"""Nodes of a graph: the subgraphs inside them, the values that they consume, and their topological order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, NodeProto

from artifacts.errors import StepError


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs inside a node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def consumed_names(node: NodeProto) -> Iterator[str]:
    """Yield the names of the values that the node consumes, directly or in its subgraphs.

    Values that a subgraph defines are left out, because one may have the same name as a later value of the outer graph.
    """
    yield from node.input
    for subgraph in subgraphs(node):
        own = {value.name for value in (*subgraph.input, *subgraph.initializer)}
        own.update(sparse.values.name for sparse in subgraph.sparse_initializer)
        own.update(name for inner in subgraph.node for name in inner.output)
        inside = (name for inner in subgraph.node for name in consumed_names(inner))
        for name in (*inside, *(output.name for output in subgraph.output)):
            if name not in own:
                yield name


def topological_sort(graph: GraphProto) -> None:
    """Sort the nodes of the graph and of its subgraphs in place, so that each follows those that it depends on.

    Nodes that are already in order keep their order. Raises StepError for a cycle.
    """
    rank = node_ranks(graph)
    for node in graph.node:
        for subgraph in subgraphs(node):
            topological_sort(subgraph)
    graph.node.sort(key=lambda node: next((rank[name] for name in node.output if name), len(rank)))


def node_ranks(graph: GraphProto) -> dict[str, int]:
    """Return a rank for each output of the graph's nodes.

    The rank of an output is above the ranks of all values that its node consumes. Raises StepError for a cycle.
    """
    nodes = list(graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    consumers: dict[int, list[int]] = {index: [] for index in range(len(nodes))}
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        for other in {producer[name] for name in consumed_names(node) if name in producer}:
            consumers[other].append(index)
            missing[index] += 1
    ready = [index for index, count in enumerate(missing) if count == 0]
    rank: dict[str, int] = {}
    while ready:
        index = heapq.heappop(ready)
        rank.update(dict.fromkeys(nodes[index].output, len(rank)))
        for consumer in consumers[index]:
            missing[consumer] -= 1
            if missing[consumer] == 0:
                heapq.heappush(ready, consumer)
    if any(missing):
        stuck = nodes[next(index for index, count in enumerate(missing) if count)]
        raise StepError(f"node '{stuck.name}': depends on its own output", "export the model again")
    return rank


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Replace the nodes of the graph by copies of `nodes`, some of which may be nodes of the graph."""
    copies = []
    for node in nodes:
        copies.append(NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)

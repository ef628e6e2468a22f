"""The nodes of a graph in an order in which each comes after those it reads from."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto

from artifacts.errors import StepError


def sort_nodes(graph: GraphProto) -> None:
    """Sort the graph's nodes and those of its bodies, in place. Nodes that may change places keep their order.

    Raises StepError if nodes read from each other in a cycle.
    """
    rank = node_ranks(graph)
    for node in graph.node:
        for body in bodies(node):
            sort_nodes(body)
    graph.node.sort(key=lambda node: next((rank[name] for name in node.output if name), len(rank)))


def node_ranks(graph: GraphProto) -> dict[str, int]:
    """Return the rank of each output of the graph's nodes: it is above those of the values that its node reads.

    Raises StepError if nodes read from each other in a cycle.
    """
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    readers: dict[int, list[int]] = {index: [] for index in range(len(nodes))}
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        for other in {maker[name] for name in read_names(node) if name in maker}:
            readers[other].append(index)
            missing[index] += 1
    ready = [index for index, count in enumerate(missing) if count == 0]
    rank: dict[str, int] = {}
    while ready:
        index = heapq.heappop(ready)
        rank.update(dict.fromkeys(nodes[index].output, len(rank)))
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if any(missing):
        stuck = nodes[next(index for index, count in enumerate(missing) if count)]
        raise StepError(f"node '{stuck.name}': reads, through others, what it writes itself", "export the model again")
    return rank


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def read_names(node: NodeProto) -> Iterator[str]:
    """Names of values that the node reads, in its bodies too; not what a body makes for itself.

    That may be called like a value that the graph around makes later.
    """
    yield from node.input
    for body in bodies(node):
        own = {value.name for value in (*body.input, *body.initializer)}
        own.update(sparse.values.name for sparse in body.sparse_initializer)
        own.update(name for inner in body.node for name in inner.output)
        for name in (*(name for inner in body.node for name in read_names(inner)), *(end.name for end in body.output)):
            if name not in own:
                yield name

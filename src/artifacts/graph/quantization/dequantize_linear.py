"""Store weights as int8 in a graph, each behind a DequantizeLinear that gives the float32 weight under its old name.

The node is in front of the first node that consumes the weight: a runtime that does not fold it needs memory for one
weight at a time. Weight, scale and zero point are named as in ONNX Runtime's quantisers.

A weight has one scale, or one for each channel. The axis of its channels is that of the outputs: then all that
contributes to one output number is multiplied by one scale. The op that consumes the weight decides it:

| op | input | axis |
|---|---|---|
| MatMul | the right matrix `[..., K, N]` | the last |
| MatMul | the left matrix `[..., M, K]` | the last but one |
| Gemm | A `[M, K]`, B `[K, N]`, or transposed | that of M, of N |
| Conv | W `[M, C/groups, ...]` | 0 |
| ConvTranspose | W `[C, M/groups, ...]` | 1 |
| LSTM, GRU, RNN | W, R `[directions, gates * hidden, ...]` | 1: a gate of a cell, for both directions together |
| Gather | the table | the one that is indexed: an entry of an embedding |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from artifacts.errors import StepError
from artifacts.graph.graph_lookup import all_names, attribute_value, free_name, opset_version
from artifacts.graph.nodes import consumed_names

if TYPE_CHECKING:
    from artifacts.graph.quantization.large_weights import Consumer, LargeWeight
    from artifacts.graph.quantization.weight_grid import Grid

OPSET = 10
OPSET_PER_CHANNEL = 13


def check_opset(model: ModelProto, *, per_channel: bool) -> None:
    """Raise StepError if the model's opset has no DequantizeLinear, or no DequantizeLinear with a scale a channel."""
    needed = OPSET_PER_CHANNEL if per_channel else OPSET
    opset = opset_version(model)
    if opset < needed:
        what = "DequantizeLinear with a scale for each channel" if per_channel else "DequantizeLinear"
        raise StepError(f"opset {opset} has no {what}", f"export the model with opset {needed} or later")


def channel_axis(consumers: Iterable[Consumer], rank: int) -> int | None:
    """Return the axis of the channels of a weight with `rank` axes; None if its consumers have none or differ."""
    axes = {_axis(consumer.node, consumer.index, rank) for consumer in consumers}
    return axes.pop() if len(axes) == 1 else None


def _axis(node: NodeProto, index: int, rank: int) -> int | None:
    axis: int | None = None
    match node.op_type, index:
        case "MatMul", 0:
            axis = rank - 2
        case "MatMul", 1:
            axis = rank - 1
        case "Gemm", 0:
            axis = attribute_value(node, "transA", 0)
        case "Gemm", 1:
            axis = 1 - attribute_value(node, "transB", 0)
        case "Conv", 1:
            axis = 0
        case (("ConvTranspose" | "LSTM" | "GRU" | "RNN"), (1 | 2)):
            axis = 1
        case "Gather", 0:
            axis = attribute_value(node, "axis", 0) % rank
    return axis if axis is not None and 0 <= axis < rank else None


@dataclass(frozen=True)
class Dequantized:
    """The new initializers of a weight: of one element (no axes), or of one for each channel."""

    scale: TensorProto
    zero_point: TensorProto

    def set_values(self, grid: Grid) -> None:
        """Write the scales and zero points of the grid into the initializers."""
        for tensor, numbers in ((self.scale, grid.scales), (self.zero_point, grid.zero_points)):
            tensor.raw_data = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


def dequantize(model: ModelProto, weights: Sequence[tuple[LargeWeight, int | None]]) -> list[Dequantized]:
    """Retype and rename each weight in place, and insert the DequantizeLinear that has its old name as output.

    Each weight comes with the axis of its channels, or None for a single scale. Its bytes stay as they are. The new
    initializers have no values until they are set.
    """
    taken = all_names(model.graph)
    done: list[Dequantized] = []
    nodes: dict[int, tuple[GraphProto, dict[str, NodeProto]]] = {}
    for weight, axis in weights:
        tensor, graph, name = weight.tensor, weight.graph, weight.tensor.name
        dims = [] if axis is None else [tensor.dims[axis]]
        tensor.name = free_name(f"{name}_quantized", taken)
        tensor.data_type = TensorProto.INT8
        scale_name, zero_point_name = (free_name(f"{name}_{part}", taken) for part in ("scale", "zero_point"))
        scale = graph.initializer.add(name=scale_name, dims=dims, data_type=TensorProto.FLOAT)
        zero_point = graph.initializer.add(name=zero_point_name, dims=dims, data_type=TensorProto.INT8)
        done.append(Dequantized(scale, zero_point))
        node = helper.make_node(
            "DequantizeLinear",
            [tensor.name, scale_name, zero_point_name],
            [name],
            name=free_name(f"{name}_DequantizeLinear", taken),
        )
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        nodes.setdefault(id(graph), (graph, {}))[1][name] = node
    # Subgraphs first: a subgraph's weight that still has the name of an outer one would look like a consumer of that.
    for graph, by_output in reversed(nodes.values()):
        _insert(graph, by_output)
    return done


def _insert(graph: GraphProto, new: dict[str, NodeProto]) -> None:
    """Insert each node in front of the first node that consumes its output. The other nodes stay the same objects."""
    first: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in consumed_names(node):
            first.setdefault(name, index)
    for name in sorted(new, key=first.__getitem__, reverse=True):  # from the end, so that the indices stay right
        graph.node.insert(first[name], new[name])

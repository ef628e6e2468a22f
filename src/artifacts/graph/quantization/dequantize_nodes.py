"""Makes weights int8 in a graph: each is read through a DequantizeLinear that gives the float32 it was.

The node has the weight's old name as its output, and stands before the first node that reads it: a runtime that does
not fold it needs room for one weight at a time. Weight, scale and zero point are named as ONNX Runtime's quantisers
name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from artifacts.errors import StepError
from artifacts.graph.node_order import bodies, read_names
from artifacts.graph.quantization.levelled_content import zero_points
from artifacts.graph.tensors import iter_tensors

if TYPE_CHECKING:
    from artifacts.graph.quantization.large_weights import LargeWeight
    from artifacts.graph.quantization.weight_levels import Levels

OPSET = 10
OPSET_PER_CHANNEL = 13


def check_opset(model: ModelProto, *, per_channel: bool) -> None:
    """Raises StepError for a model whose opset has no DequantizeLinear, or none with a scale a channel."""
    needed = OPSET_PER_CHANNEL if per_channel else OPSET
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < needed:
        what = "DequantizeLinear with a scale for each channel" if per_channel else "DequantizeLinear"
        raise StepError(f"opset {opset} has no {what}", f"export the model with opset {needed} or later")


@dataclass(frozen=True)
class Dequantized:
    """The new initializers of a weight: of one element (no axes), or of one a channel."""

    scale: TensorProto
    zero_point: TensorProto

    def give(self, levels: Levels) -> None:
        """Write the numbers of these levels into both."""
        for tensor, numbers in ((self.scale, levels.steps), (self.zero_point, zero_points(levels))):
            tensor.raw_data = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


def dequantize(model: ModelProto, weights: Sequence[tuple[LargeWeight, int | None]]) -> list[Dequantized]:
    """Retype and rename each weight, in place, and let a DequantizeLinear give its old name.

    Each comes with the axis of its channels, or None for one scale in all. Its bytes stay what they are, and the new
    initializers have none until they are given.
    """
    taken = _names(model)
    done: list[Dequantized] = []
    nodes: dict[int, tuple[GraphProto, dict[str, NodeProto]]] = {}
    for weight, axis in weights:
        tensor, graph, name = weight.tensor, weight.graph, weight.tensor.name
        dims = [] if axis is None else [tensor.dims[axis]]
        tensor.name = _free(f"{name}_quantized", taken)
        tensor.data_type = TensorProto.INT8
        scale = graph.initializer.add(name=_free(f"{name}_scale", taken), dims=dims, data_type=TensorProto.FLOAT)
        zero_point = graph.initializer.add(
            name=_free(f"{name}_zero_point", taken), dims=dims, data_type=TensorProto.INT8
        )
        done.append(Dequantized(scale, zero_point))
        node = helper.make_node(
            "DequantizeLinear",
            [tensor.name, scale.name, zero_point.name],
            [name],
            name=_free(f"{name}_DequantizeLinear", taken),
        )
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        nodes.setdefault(id(graph), (graph, {}))[1][name] = node
    for graph, by_output in nodes.values():
        _insert(graph, by_output)
    return done


def _insert(graph: GraphProto, new: dict[str, NodeProto]) -> None:
    """Put each node before the first that reads its output; the others stay the very objects that they were."""
    first: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in read_names(node):
            first.setdefault(name, index)
    for name in sorted(new, key=first.__getitem__, reverse=True):  # from behind, so that the places stay right
        graph.node.insert(first[name], new[name])


def _names(model: ModelProto) -> set[str]:
    """Every name that a tensor, value or node of the model has."""
    return {tensor.name for tensor in iter_tensors(model)} | set(_names_in(model.graph.node))


def _names_in(nodes: Iterable[NodeProto]) -> Iterable[str]:
    for node in nodes:
        yield from (node.name, *node.input, *node.output)
        for body in bodies(node):
            yield from (value.name for value in body.input)
            yield from _names_in(body.node)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name

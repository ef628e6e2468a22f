"""MatMuls of an activation by a constant matrix: the nodes that are quantised, smoothed or calibrated.

A MatMul of two activations (attention scores) has no weight and does not count. Only the top graph is searched: exports
of this family have no MatMul in a subgraph of an If or a Loop.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from artifacts.graph.quantization.float_model import constants_to_initializers


@dataclass(frozen=True)
class WeightMatMul:
    """A node `y [..., N] = activation [..., K] x weight [K, N]`. Both protobufs are parts of the model."""

    node: NodeProto
    weight: TensorProto

    @property
    def activation(self) -> str:
        """The name of the value that is multiplied."""
        return str(self.node.input[0])

    @property
    def sizes(self) -> tuple[int, int]:
        """Input channels K and output channels N."""
        return self.weight.dims[0], self.weight.dims[1]


def weight_matmuls(model: ModelProto, excluded: Collection[str] = ()) -> list[WeightMatMul]:
    """Return the MatMuls whose right input is a two-dimensional float32 initializer, in the graph's order.

    Nodes whose name is in `excluded` are left out.
    """
    weights = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT
    }
    return [
        WeightMatMul(node, weights[node.input[1]])
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and node.name not in excluded
    ]


def matmuls_by_activation(model: ModelProto, excluded: Collection[str] = ()) -> dict[str, list[WeightMatMul]]:
    """Return the MatMuls of `weight_matmuls` by the name of their activation."""
    consumers: dict[str, list[WeightMatMul]] = {}
    for matmul in weight_matmuls(model, excluded):
        consumers.setdefault(matmul.activation, []).append(matmul)
    return consumers


def matrices_to_initializers(model: ModelProto) -> None:
    """Turn each Constant of the top graph that is a float32 matrix (or has more axes) into an initializer."""
    constants_to_initializers(model.graph, lambda value: len(value.dims) >= 2 and value.data_type == TensorProto.FLOAT)

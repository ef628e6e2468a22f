"""The MatMuls that multiply an activation by a constant matrix: what there is to quantise, smooth or calibrate.

A MatMul of two activations (attention scores) has no weight, and is none of these. Only the top graph is looked at:
exports of this family have no MatMul in the body of an If or a Loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from artifacts.graph.constants import constants_to_initializers


@dataclass(frozen=True)
class WeightMatMul:
    """A node `y [..., N] = activation [..., K] x weight [K, N]`; both protobufs are those of the model."""

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


def weight_matmuls(model: ModelProto) -> list[WeightMatMul]:
    """The MatMuls with a two-dimensional float32 initializer on their right, in the graph's order."""
    weights = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT
    }
    return [
        WeightMatMul(node, weights[node.input[1]])
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]


def matrices_to_initializers(model: ModelProto) -> None:
    """Turn each Constant of the top graph that holds a float32 matrix (or more axes) into an initializer."""
    constants_to_initializers(model.graph, lambda value: len(value.dims) >= 2 and value.data_type == TensorProto.FLOAT)

"""LayerNormalizations whose channels can be scaled: only weights consume them, and those can be scaled inversely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from artifacts.graph.graph_lookup import attribute_value
from artifacts.graph.nodes import consumed_names
from artifacts.graph.quantization.weight_matmuls import WeightMatMul, matmuls_by_activation


@dataclass(frozen=True)
class WeightedNorm:
    """A LayerNormalization `[..., C]` that only MatMuls by constant weights consume.

    `affine` is gamma, and beta if the node has one: float32 `[C]`.
    """

    node: NodeProto
    affine: Sequence[TensorProto]
    consumers: Sequence[WeightMatMul]

    @property
    def value(self) -> str:
        """The name of the node's output."""
        return str(self.node.output[0])

    @property
    def channels(self) -> int:
        return int(self.affine[0].dims[0])


def weighted_norms(model: ModelProto) -> list[WeightedNorm]:
    """Return those of the top graph, in its order. Nodes that consume only the shape do not count as consumers.

    Left out are LayerNormalizations with another consumer (a convolution, an addition, a subgraph, an output of the
    model). Also those whose axis is not -1, or whose gamma or beta is not a float32 initializer with one axis.
    """
    vectors = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 1 and tensor.data_type == TensorProto.FLOAT
    }
    consumers = Counter(value.name for value in model.graph.output)
    for node in model.graph.node:
        if node.op_type != "Shape":
            consumers.update(set(consumed_names(node)))
    multiplied = matmuls_by_activation(model)
    norms = []
    for node in model.graph.node:
        matmuls = multiplied.get(node.output[0], [])
        affine = [vectors[name] for name in node.input[1:] if name in vectors]
        of_last_axis = attribute_value(node, "axis", -1) == -1
        is_norm = node.op_type == "LayerNormalization" and of_last_axis and len(affine) == len(node.input) - 1
        if is_norm and matmuls and consumers[node.output[0]] == len(matmuls):
            norms.append(WeightedNorm(node, affine, matmuls))
    return norms

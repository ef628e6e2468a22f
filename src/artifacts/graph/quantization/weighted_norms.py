"""The LayerNormalizations whose channels may be scaled: nothing but weights reads them, which can be scaled back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from artifacts.graph.node_order import read_names
from artifacts.graph.quantization.weight_matmuls import WeightMatMul, weight_matmuls


@dataclass(frozen=True)
class WeightedNorm:
    """A LayerNormalization `[..., C]` whose numbers only MatMuls by constant weights read."""

    node: NodeProto
    affine: Sequence[TensorProto]
    """Gamma, and beta if it has one: float32 `[C]`."""
    readers: Sequence[WeightMatMul]

    @property
    def value(self) -> str:
        """The name of what it gives."""
        return str(self.node.output[0])

    @property
    def channels(self) -> int:
        return int(self.affine[0].dims[0])


def weighted_norms(model: ModelProto) -> list[WeightedNorm]:
    """Those of the top graph, in its order. Nodes that read the shape alone do not count as readers.

    Left out are LayerNormalizations that something else reads too (a convolution, an addition, a body, the model's
    output), whose axis is not -1, or whose gamma or beta is no float32 vector among the initializers.
    """
    vectors = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 1 and tensor.data_type == TensorProto.FLOAT
    }
    readers = Counter(value.name for value in model.graph.output)
    for node in model.graph.node:
        if node.op_type != "Shape":
            readers.update(set(read_names(node)))
    multiplied: dict[str, list[WeightMatMul]] = {}
    for matmul in weight_matmuls(model):
        multiplied.setdefault(matmul.activation, []).append(matmul)
    norms = []
    for node in model.graph.node:
        matmuls = multiplied.get(node.output[0], [])
        affine = [vectors[name] for name in node.input[1:] if name in vectors]
        of_last_axis = all(attribute.i == -1 for attribute in node.attribute if attribute.name == "axis")
        is_norm = node.op_type == "LayerNormalization" and of_last_axis and len(affine) == len(node.input) - 1
        if is_norm and matmuls and readers[node.output[0]] == len(matmuls):
            norms.append(WeightedNorm(node, affine, matmuls))
    return norms

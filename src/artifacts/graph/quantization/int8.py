"""8-bit integers in a graph: whether there are any, which nodes read them, and whether each weight survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from artifacts.errors import StepError
from artifacts.graph.tensor_reader import TensorReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPS = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
        "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul",
        "QuantizeLinear",
    }
)  # fmt: skip

_DTYPES = (TensorProto.UINT8, TensorProto.INT8)


def quantized_node(model: ModelProto) -> NodeProto | None:
    """The first node of the model's graph that computes on quantised numbers or makes them, if there is one."""
    return next((node for node in model.graph.node if node.op_type in _OPS), None)


def count_readers(model: ModelProto) -> Counter[str]:
    """How many nodes of each op read 8-bit weights."""
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type in _DTYPES and tensor.dims}
    return Counter(
        node.op_type
        for node in model.graph.node
        if node.op_type != "DequantizeLinear" and not weights.isdisjoint(node.input)
    )


def check_finite(model: ModelProto, reader: TensorReader, op_types: Collection[str]) -> None:
    """Check the weights of nodes of these types. Raises StepError if one holds NaN or infinity: it has no scale."""
    names = {name for node in model.graph.node if node.op_type in op_types for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name in names and not np.isfinite(reader.array(tensor)).all():
            raise StepError(f"weight '{tensor.name}': holds NaN or infinity", "train or export the checkpoint again")


def check_quantized(model: ModelProto, reader: TensorReader, before: ModelProto, original: TensorReader) -> int:
    """Check the weights that ONNX Runtime quantised, against those of the model `before`. Returns how many there are.

    Raises StepError if a scale is not a positive number, or if all numbers of a weight became one that were not.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    originals = {tensor.name: tensor for tensor in before.graph.initializer}
    added = [name for name in tensors if name.endswith("_quantized") and name not in originals]
    weights = [name.removesuffix("_quantized") for name in added]
    names = [name for name in weights if name in originals and f"{name}_scale" in tensors]  # none: nothing reads it
    for name in names:
        scale = reader.array(tensors[f"{name}_scale"])
        wrong = scale[~(np.isfinite(scale) & (scale > 0))]
        if wrong.size:
            raise StepError(
                f"weight '{name}': quantised with the scale {wrong.flat[0]}", "exclude the nodes that read it"
            )
        if _is_uniform(reader.array(tensors[f"{name}_quantized"])) and not _is_uniform(original.array(originals[name])):
            raise StepError(f"weight '{name}': quantised to one single number", "exclude the nodes that read it")
    return len(names)


def _is_uniform(numbers: NDArray[Any]) -> bool:
    return bool((numbers == numbers.flat[0]).all())

"""Check that no sum of two uint8 x int8 products exceeds 16 bits.

ONNX Runtime multiplies uint8 activations by int8 weights with the instructions of the processor. Without VNNI that is
VPMADDUBSW (Intel, "Software Developer's Manual", volume 2), which adds two products in 16 bits and saturates: two
products of 255 and 127 are 64,770 and come out as 32,767. AVX2 alone, AMD before Zen 4 and AVX-512 of the first
generation are of that kind, and wasm is treated as one. uint8 weights use VPMADDWD, whose sums are exact everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto

from artifacts.errors import StepError

if TYPE_CHECKING:
    from artifacts.graph.tensor_content import TensorReader

LARGEST_ACTIVATION = 255
LARGEST_SUM = 2**15 - 1

# Ops that multiply integers, and which of their inputs may be weights.
_WEIGHT_INPUTS = {
    "ConvInteger": (1,), "DynamicQuantizeLSTM": (1, 2), "DynamicQuantizeMatMul": (1,), "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1), "QAttention": (1,), "QGemm": (0, 3), "QLinearConv": (3,), "QLinearMatMul": (0, 3),
}  # fmt: skip

# Ops that ONNX Runtime fuses into an integer op when DequantizeLinear nodes produce both inputs.
_FUSED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

# Nodes that may stand between a DequantizeLinear and such an op.
_MOVING_OPS = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def check_sums(model: ModelProto, reader: TensorReader) -> None:
    """Raise StepError if the model has a weight that saturates on a processor without VNNI."""
    for name in saturating_weights(model, reader):
        raise StepError(
            f"weight '{name}': two of its products can exceed {LARGEST_SUM}, where processors without VNNI saturate",
            "quantise it to 7 bits (reduce_range), or to uint8",
        )


def saturating_weights(model: ModelProto, reader: TensorReader) -> list[str]:
    """Return the names of int8 weights of the top graph that saturate on a processor without VNNI at worst.

    The worst case is two activations of 255 that are multiplied by the weight's largest magnitude. Which two products
    are added depends on the runtime.
    """
    names = set(_multiplied(model))
    return [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.name in names
        and tensor.data_type == TensorProto.INT8
        and 2 * LARGEST_ACTIVATION * int(np.abs(reader.array(tensor).astype(np.int16)).max(initial=0)) > LARGEST_SUM
    ]


def _multiplied(model: ModelProto) -> Iterator[str]:
    """Yield the names of values that are multiplied as integers, directly or behind a DequantizeLinear."""
    constants = {tensor.name for tensor in model.graph.initializer}
    integers_of: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            integers_of[node.output[0]] = node.input[0]
        elif node.op_type in _MOVING_OPS and node.input[0] in integers_of:
            integers_of[node.output[0]] = integers_of[node.input[0]]
    for node in model.graph.node:
        yield from (node.input[index] for index in _WEIGHT_INPUTS.get(node.op_type, ()) if index < len(node.input))
        if node.op_type in _FUSED_OPS:
            integers = [integers_of.get(name, "") for name in node.input[:2]]
            if all(integers) and not constants.issuperset(integers):
                yield from integers

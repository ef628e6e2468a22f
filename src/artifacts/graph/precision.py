"""In how many bits a model keeps its weights: what is called fp32 must not hold int8."""

from __future__ import annotations

from typing import Literal

from onnx import ModelProto, TensorProto

from artifacts.graph.tensors import BITS_PER_ELEMENT, iter_tensors, tensor_nbytes

WEIGHT_BYTES = 1024
"""What needs less is a bias, a scale or a shape."""

Precision = Literal["int8", "fp16", "fp32"]


def weight_precision(model: ModelProto) -> Precision:
    """The fewest bits that any weight is stored in: `int8` stands for 8 and fewer, `fp32` for 32 and more.

    Block-quantised weights (MatMulNBits) are int8 too, and so are those that a DequantizeLinear widens again.
    """
    bits = min(
        (
            BITS_PER_ELEMENT[tensor.data_type]
            for tensor in iter_tensors(model)
            if tensor.data_type not in (TensorProto.BOOL, TensorProto.STRING) and tensor_nbytes(tensor) >= WEIGHT_BYTES
        ),
        default=32,
    )
    return "fp32" if bits >= 32 else "fp16" if bits >= 16 else "int8"

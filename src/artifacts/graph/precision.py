"""Precision of a model's weights: a file that is called fp32 must not contain int8 weights."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from artifacts.graph.tensors import BITS_PER_ELEMENT, iter_tensors, tensor_nbytes

# A smaller tensor is a bias, a scale or a shape.
WEIGHT_BYTES = 1024

# The fewest bits first. `int8` stands for 8 and fewer, `fp32` for 32 and more.
PRECISIONS = ("int8", "fp16", "fp32")


def weight_precision(model: ModelProto) -> str:
    """Return the one of `PRECISIONS` with the fewest bits that any weight is stored in.

    Block-quantised weights (MatMulNBits) count as int8, and so do weights that a DequantizeLinear converts back.
    """
    bits = min(
        (
            BITS_PER_ELEMENT[tensor.data_type]
            for tensor in iter_tensors(model)
            if tensor.data_type not in (TensorProto.BOOL, TensorProto.STRING) and tensor_nbytes(tensor) >= WEIGHT_BYTES
        ),
        default=32,
    )
    return PRECISIONS[(bits >= 16) + (bits >= 32)]

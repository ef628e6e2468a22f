"""In how many bits a model keeps its weights: what is called fp32 must not hold int8."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from artifacts.graph.tensors import BITS_PER_ELEMENT, iter_tensors, tensor_nbytes

WEIGHT_BYTES = 1024
"""What needs less is a bias, a scale or a shape."""

PRECISIONS = ("int8", "fp16", "fp32")
"""By bits, the fewest first. `int8` stands for 8 and fewer, `fp32` for 32 and more."""


def weight_precision(model: ModelProto) -> str:
    """The one of `PRECISIONS` with the fewest bits that any weight is stored in.

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
    return PRECISIONS[(bits >= 16) + (bits >= 32)]

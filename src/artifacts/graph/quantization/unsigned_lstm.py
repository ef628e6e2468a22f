"""Convert int8 LSTM weights to uint8.

ONNX Runtime's quantiser makes LSTM weights int8, whatever type it is asked for. On a processor without VNNI the sums of
their products saturate (see `int8_sums`): on the embedded decoder_joint the first state is wrong by up to 0.70 of its
largest value. The same weights as uint8 with a zero point of 128 give the same integers, exactly, on every processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

if TYPE_CHECKING:
    from artifacts.graph.tensor_reader import TensorReader

ZERO_POINT = 128

# Inputs of ONNX Runtime's DynamicQuantizeLSTM: W and R, and the zero point of each.
_WEIGHTS_AND_ZERO_POINTS = ((1, 9), (2, 11))


def make_lstm_weights_unsigned(model: ModelProto, reader: TensorReader) -> int:
    """Turn the int8 weights of each DynamicQuantizeLSTM of the top graph into uint8, in place; return how many.

    The zero points of int8 weights are 0: ONNX Runtime accepts no other.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {
        (node.input[weight], node.input[zero_point])
        for node in model.graph.node
        if node.op_type == "DynamicQuantizeLSTM"
        for weight, zero_point in _WEIGHTS_AND_ZERO_POINTS
    }
    signed = [pair for pair in sorted(pairs) if tensors[pair[0]].data_type == TensorProto.INT8]
    for weight, zero_point in signed:
        numbers = reader.array(tensors[weight]).view(np.uint8) ^ np.uint8(ZERO_POINT)
        tensors[weight].CopyFrom(numpy_helper.from_array(numbers, weight))
        zeros = np.full(tuple(tensors[zero_point].dims), ZERO_POINT, np.uint8)
        tensors[zero_point].CopyFrom(numpy_helper.from_array(zeros, zero_point))
    return len(signed)

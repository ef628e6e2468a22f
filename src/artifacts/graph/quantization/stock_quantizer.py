"""ONNX Runtime's dynamic quantiser: what its input must be like, and corrections and checks of its output.

It expects weights that are dense, have one consumer each, and are not inputs of the graph.

It makes LSTM weights int8, whatever type it is told. On a processor without VNNI the sums of their products saturate
(see `int8_sums`): on the embedded decoder_joint the first state is wrong by up to 0.70 of its largest value. The same
weights as uint8 with a zero point of 128 give the same integers, exactly, on every processor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.graph_lookup import attribute_value, free_name
from artifacts.graph.nodes import consumed_names, subgraphs
from artifacts.graph.tensor_content import TensorReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT8 = (TensorProto.UINT8, TensorProto.INT8)
_ZERO_POINT = 128

# Inputs of ONNX Runtime's DynamicQuantizeLSTM: W and R, and the zero point of each.
_WEIGHTS_AND_ZERO_POINTS = ((1, 9), (2, 11))

# Attributes that a Gemm must have for the quantiser to rewrite it.
_PLAIN_GEMM = (("alpha", 1), ("beta", 1), ("transA", 0))

# A node, and which of its inputs.
_Use = tuple[NodeProto, int]


def check_dense(model: ModelProto) -> None:
    """Raise StepError for a model with sparse initializers: the quantiser ignores them."""
    for sparse in model.graph.sparse_initializer:
        raise StepError(f"weight '{sparse.values.name}' is sparse", "export the model with dense weights")


def check_finite(model: ModelProto, reader: TensorReader, op_types: Collection[str]) -> None:
    """Raise StepError if a weight of nodes of these types has NaN or infinity: it has no scale."""
    names = {name for node in model.graph.node if node.op_type in op_types for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name in names and not np.isfinite(reader.array(tensor)).all():
            raise StepError(f"weight '{tensor.name}': has NaN or infinity", "train or export the checkpoint again")


def separate_weights(model: ModelProto, op_types: Collection[str], excluded: Collection[str]) -> None:
    """Copy a shared weight for each consumer whose weight the quantiser transposes in place.

    It transposes the weight of each Gemm with transB, also in subgraphs and whatever `op_types` says, and the weights
    of each LSTM that it quantises. It does so once for each consumer, so that two of them undo it.
    """
    lstms = [node for node in model.graph.node if node.op_type == "LSTM" and node.name not in excluded]
    uses = [(node, index) for node in lstms for index in (1, 2)] if "LSTM" in op_types else []
    _copy_shared(model.graph, [*_transposed_gemms(model.graph), *uses])


def _copy_shared(graph: GraphProto, uses: Iterable[_Use]) -> None:
    consumers = Counter(name for node in graph.node for name in consumed_names(node))
    consumers.update(value.name for value in graph.output)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = {*consumers, *tensors}
    for node, index in uses:
        name = node.input[index]
        if name in tensors and consumers[name] > 1:
            copy = graph.initializer.add()
            copy.CopyFrom(tensors[name])
            copy.name = free_name(f"{name}_copy_{consumers[name]}", taken)
            node.input[index] = copy.name
            consumers[name] -= 1
    for node in graph.node:
        for subgraph in subgraphs(node):
            _copy_shared(subgraph, _transposed_gemms(subgraph))


def _transposed_gemms(graph: GraphProto) -> Iterator[_Use]:
    for node in graph.node:
        if node.op_type == "Gemm":
            plain = all(attribute_value(node, name, default) == default for name, default in _PLAIN_GEMM)
            if plain and attribute_value(node, "transB", 0) == 1:  # the quantiser ignores other Gemms
                yield node, 1
        for subgraph in subgraphs(node):
            yield from _transposed_gemms(subgraph)


def drop_weight_inputs(model: ModelProto) -> None:
    """Bring a model of IR version 3, where each initializer is an input of the graph too, to version 4.

    The quantiser adds initializers that are not inputs. In version 3 a caller could not replace an initializer.
    """
    if model.ir_version < 4:
        model.ir_version = 4
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(inputs)


def count_consumers(model: ModelProto) -> Counter[str]:
    """Count the nodes that consume 8-bit weights, by op."""
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type in _INT8 and tensor.dims}
    return Counter(
        node.op_type
        for node in model.graph.node
        if node.op_type != "DequantizeLinear" and not weights.isdisjoint(node.input)
    )


def check_quantized(model: ModelProto, reader: TensorReader, before: ModelProto, original: TensorReader) -> int:
    """Check the quantised weights against those of the model `before`. Return their number.

    Raises StepError if a scale is not a positive number, or if different numbers of a weight all became one number.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    originals = {tensor.name: tensor for tensor in before.graph.initializer}
    added = [name for name in tensors if name.endswith("_quantized") and name not in originals]
    weights = [name.removesuffix("_quantized") for name in added]
    names = [name for name in weights if name in originals and f"{name}_scale" in tensors]  # without: not consumed
    for name in names:
        scale = reader.array(tensors[f"{name}_scale"])
        wrong = scale[~(np.isfinite(scale) & (scale > 0))]
        if wrong.size:
            raise StepError(
                f"weight '{name}': quantised with the scale {wrong.flat[0]}", "exclude the nodes that consume it"
            )
        if _is_uniform(reader.array(tensors[f"{name}_quantized"])) and not _is_uniform(original.array(originals[name])):
            raise StepError(f"weight '{name}': quantised to a single number", "exclude the nodes that consume it")
    return len(names)


def _is_uniform(numbers: NDArray[Any]) -> bool:
    return bool((numbers == numbers.flat[0]).all())


def make_lstm_weights_unsigned(model: ModelProto, reader: TensorReader) -> int:
    """Turn the int8 weights of each DynamicQuantizeLSTM of the top graph into uint8, in place. Return their number.

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
        numbers = reader.array(tensors[weight]).view(np.uint8) ^ np.uint8(_ZERO_POINT)
        tensors[weight].CopyFrom(numpy_helper.from_array(numbers, weight))
        zeros = np.full(tuple(tensors[zero_point].dims), _ZERO_POINT, np.uint8)
        tensors[zero_point].CopyFrom(numpy_helper.from_array(zeros, zero_point))
    return len(signed)

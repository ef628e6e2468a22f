"""What ONNX Runtime's quantiser takes for granted of weights: dense, with one reader each, and no inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from onnx import GraphProto, ModelProto, NodeProto, helper

from artifacts.errors import StepError
from artifacts.graph.node_order import bodies, read_names

_Read = tuple[NodeProto, int]


def check_dense(model: ModelProto, name: str) -> None:
    """Raises StepError, with the file's name, for a model with sparse initializers: the quantiser does not see them."""
    for sparse in model.graph.sparse_initializer:
        raise StepError(f"{name}: weight '{sparse.values.name}' is sparse", "export the model with dense weights")


def separate_weights(model: ModelProto, op_types: Collection[str], excluded: Collection[str]) -> None:
    """Give nodes a copy of their own of a weight that others read too, where ONNX Runtime's quantiser rewrites it.

    It transposes the weight of each Gemm with transB, in bodies too and whatever `op_types` says, and those of each
    LSTM that it quantises: once for each reader, so that two turn it back.
    """
    lstms = [node for node in model.graph.node if node.op_type == "LSTM" and node.name not in excluded]
    reads = [(node, index) for node in lstms for index in (1, 2)] if "LSTM" in op_types else []
    _give_copies(model.graph, [*_transposing_gemms(model.graph), *reads])


def _give_copies(graph: GraphProto, reads: Iterable[_Read]) -> None:
    readers = Counter(name for node in graph.node for name in read_names(node))
    readers.update(value.name for value in graph.output)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node, index in reads:
        name = node.input[index]
        if name in tensors and readers[name] > 1:
            copy = graph.initializer.add()
            copy.CopyFrom(tensors[name])
            copy.name = f"{name}_copy_{readers[name]}"
            while copy.name in readers or copy.name in tensors:
                copy.name += "_"
            node.input[index] = copy.name
            readers[name] -= 1
    for node in graph.node:
        for body in bodies(node):
            _give_copies(body, _transposing_gemms(body))


def _transposing_gemms(graph: GraphProto) -> Iterator[_Read]:
    for node in graph.node:
        if node.op_type == "Gemm":
            given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            plain = (given.get("alpha", 1), given.get("beta", 1), given.get("transA", 0)) == (1, 1, 0)
            if plain and given.get("transB", 0) == 1:  # it leaves the others as they are
                yield node, 1
        for body in bodies(node):
            yield from _transposing_gemms(body)


def drop_weight_inputs(model: ModelProto) -> None:
    """Bring a model of IR version 3, where each initializer is an input of the graph too, to version 4.

    The quantiser adds initializers that are not. In version 3 nobody could give another value for one.
    """
    if model.ir_version < 4:
        model.ir_version = 4
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(inputs)

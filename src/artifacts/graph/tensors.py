"""The tensors of a model: where they are, whether their values fit their dims and dtype, and their bytes.

A tensor is an initializer of a graph or an attribute of a node (a Constant's `value`, a ConstantOfShape's fill value).
The graph may be a subgraph of an If, Loop or Scan, the node may be in a function of the model. Its values are in
`raw_data`, in a typed field (`float_data`, `int64_data`, ...) or in a file beside the model: all of them mean the same
little-endian bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError

BITS_PER_ELEMENT: dict[int, int] = {
    **dict.fromkeys((TensorProto.UINT2, TensorProto.INT2), 2),
    **dict.fromkeys((TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1), 4),
    **dict.fromkeys((TensorProto.FLOAT6E2M3, TensorProto.FLOAT6E3M2), 6),
    **dict.fromkeys((TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8, TensorProto.FLOAT8E8M0), 8),
    **dict.fromkeys((TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ), 8),
    **dict.fromkeys((TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ), 8),
    **dict.fromkeys((TensorProto.UINT16, TensorProto.INT16, TensorProto.FLOAT16, TensorProto.BFLOAT16), 16),
    **dict.fromkeys((TensorProto.UINT32, TensorProto.INT32, TensorProto.FLOAT), 32),
    **dict.fromkeys((TensorProto.UINT64, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.COMPLEX64), 64),
    TensorProto.COMPLEX128: 128,
}

# The fields of a TensorProto. One of them contains the values of a tensor that is not external.
VALUE_FIELDS = (
    "raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data",
)  # fmt: skip

MAX_AXES = 32
MAX_ELEMENTS = 2**60


@dataclass(frozen=True)
class LocatedTensor:
    """A tensor of a model, and the label that names it in errors.

    `movable` is true where runtimes read external data: initializers and the `value` of Constant nodes, outside of
    functions; not strings.
    """

    tensor: TensorProto
    label: str
    movable: bool


def iter_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of the model, in the order of `located_tensors`. To change one changes the model."""
    for located in located_tensors(model):
        yield located.tensor


def located_tensors(model: ModelProto) -> Iterator[LocatedTensor]:
    """Yield every tensor of the model: the initializers, the nodes in order (with subgraphs), then the functions."""
    yield from _in_graph(model.graph)
    for function in model.functions:
        for located in _in_nodes(function.node):
            yield LocatedTensor(located.tensor, f"function '{function.name}', {located.label}", movable=False)


def _in_graph(graph: GraphProto) -> Iterator[LocatedTensor]:
    for tensor in graph.initializer:
        yield LocatedTensor(tensor, f"tensor '{tensor.name}'", tensor.data_type != TensorProto.STRING)
    for sparse in graph.sparse_initializer:
        yield LocatedTensor(sparse.values, f"sparse tensor '{sparse.values.name}'", movable=False)
        yield LocatedTensor(sparse.indices, f"indices of sparse tensor '{sparse.values.name}'", movable=False)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[NodeProto]) -> Iterator[LocatedTensor]:
    for node in nodes:
        for attribute in node.attribute:
            label = f"attribute '{attribute.name}' of {node.op_type} '{node.name or ', '.join(node.output)}'"
            if attribute.type == AttributeProto.TENSOR:
                yield LocatedTensor(attribute.t, label, _is_movable(node, attribute))
            for tensor in attribute.tensors:
                yield LocatedTensor(tensor, label, movable=False)
            single = (attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()
            for sparse in (*single, *attribute.sparse_tensors):
                yield LocatedTensor(sparse.values, label, movable=False)
                yield LocatedTensor(sparse.indices, label, movable=False)
            if attribute.type == AttributeProto.GRAPH:
                yield from _in_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _in_graph(graph)


def _is_movable(node: NodeProto, attribute: AttributeProto) -> bool:
    is_constant = node.op_type == "Constant" and node.domain in ("", "ai.onnx") and attribute.name == "value"
    return is_constant and attribute.t.data_type != TensorProto.STRING


def is_external(tensor: TensorProto) -> bool:
    """Return whether the tensor's values are in a file beside the model."""
    return tensor.data_location == TensorProto.EXTERNAL


def tensor_nbytes(tensor: TensorProto) -> int:
    """Return the bytes that the tensor's values need, by its dims and dtype (2, 4 and 6-bit values are packed).

    Raises StepError for a dtype whose values have no fixed size (strings) and for negative dims.
    """
    bits = BITS_PER_ELEMENT.get(tensor.data_type)
    dims: list[int] = list(tensor.dims)
    if bits is None or any(dim < 0 for dim in dims):
        raise StepError(
            f"tensor '{tensor.name}': data type {tensor.data_type} with dims {dims} has no size in bytes",
            "export the model again",
        )
    return (prod(dims) * bits + 7) // 8


def check_values(located: LocatedTensor) -> None:
    """Check that the tensor has as many values as its dims and dtype need, in one field. External bytes are not read.

    Raises StepError with the tensor's label. An external tensor must have no values in the protobuf.
    """
    tensor = located.tensor
    count = prod(dim for dim in tensor.dims if dim)  # numpy bounds this product, also for a tensor without elements
    if len(tensor.dims) > MAX_AXES or not all(dim >= 0 for dim in tensor.dims) or count > MAX_ELEMENTS:
        raise _unfit(located, f"dims {list(tensor.dims[:MAX_AXES])} are not valid")
    if tensor.data_type not in BITS_PER_ELEMENT and tensor.data_type != TensorProto.STRING:
        raise _unfit(located, f"data type {tensor.data_type} is unknown")
    there = [field for field in VALUE_FIELDS[1:] if getattr(tensor, field)]
    if tensor.HasField("raw_data"):
        there.append("raw_data")
    if is_external(tensor):
        if there:
            raise _unfit(located, f"its values are external and in {there[0]}")
        return
    if len(there) > 1:
        raise _unfit(located, f"its values are in {there[0]} and in {there[1]}")
    count = prod(tensor.dims)
    if not there:
        have, need = 0, count
    elif there == ["raw_data"]:
        have, need = len(tensor.raw_data), -1 if tensor.data_type == TensorProto.STRING else tensor_nbytes(tensor)
    elif there[0] != helper.tensor_dtype_to_field(tensor.data_type):
        have, need = len(getattr(tensor, there[0])), -1
    else:
        have, need = len(getattr(tensor, there[0])), _numbers(tensor.data_type, count)
    if have != need:
        found = f"has {have} in {there[0]}" if there else "has no values"
        wanted = f"need {need}" if need >= 0 else "cannot have them"
        raise _unfit(located, f"{found}, dims {list(tensor.dims)} of data type {tensor.data_type} {wanted}")


def _numbers(data_type: int, count: int) -> int:
    """Return the number of entries in a typed field: two for a complex element, one for two elements of 4 bits."""
    if data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    bits = BITS_PER_ELEMENT.get(data_type, 8)
    return -(-count * bits // 8) if bits in (2, 4) else count


def _unfit(located: LocatedTensor, fact: str) -> StepError:
    return StepError(f"{located.label}: {fact}", "export the model again, or copy its file again")


def inline_bytes(tensor: TensorProto) -> bytes:
    """Return the little-endian bytes of a tensor that is not external, from whichever field contains them.

    Raises StepError if they do not match the tensor's dims and dtype.
    """
    needed = tensor_nbytes(tensor)
    if tensor.HasField("raw_data"):
        data = tensor.raw_data
    else:
        try:
            data = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        except ValueError as error:
            raise StepError(f"tensor '{tensor.name}': {error}", "export the model again") from error
    if len(data) != needed:
        raise StepError(
            f"tensor '{tensor.name}': has {len(data)} bytes, dims {list(tensor.dims)} need {needed}",
            "export the model again",
        )
    return data

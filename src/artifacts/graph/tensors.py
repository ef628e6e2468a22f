"""Where the tensors of a model are, and what their bytes are.

A tensor sits in a graph's initializers or in a node's attribute (a Constant's `value`, a ConstantOfShape's fill value),
also in the body of an If, Loop or Scan and in a model's functions. Its values are in `raw_data`, in a typed field
(`float_data`, `int64_data`, ...) or in a file beside the model: all of them mean the same little-endian bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

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


@dataclass(frozen=True)
class TensorPlace:
    """A tensor and where it was found.

    `label` names it in an error. `movable` is true where runtimes read external data: initializers and the `value` of
    Constant nodes, outside of functions; not strings.
    """

    tensor: TensorProto
    label: str
    movable: bool


def iter_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the model, in the order of `iter_places`. Changing a yielded tensor changes the model."""
    for place in iter_places(model):
        yield place.tensor


def iter_places(model: ModelProto) -> Iterator[TensorPlace]:
    """Every tensor of the model: a graph's initializers, then its nodes in order (bodies inside), functions last."""
    yield from _in_graph(model.graph)
    for function in model.functions:
        for place in _in_nodes(function.node):
            yield TensorPlace(place.tensor, f"function '{function.name}', {place.label}", movable=False)


def _in_graph(graph: GraphProto) -> Iterator[TensorPlace]:
    for tensor in graph.initializer:
        yield TensorPlace(tensor, f"tensor '{tensor.name}'", tensor.data_type != TensorProto.STRING)
    for sparse in graph.sparse_initializer:
        yield TensorPlace(sparse.values, f"sparse tensor '{sparse.values.name}'", movable=False)
        yield TensorPlace(sparse.indices, f"indices of sparse tensor '{sparse.values.name}'", movable=False)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorPlace]:
    for node in nodes:
        for attribute in node.attribute:
            label = f"attribute '{attribute.name}' of {node.op_type} '{node.name or ', '.join(node.output)}'"
            if attribute.type == AttributeProto.TENSOR:
                yield TensorPlace(attribute.t, label, _is_movable(node, attribute))
            for tensor in attribute.tensors:
                yield TensorPlace(tensor, label, movable=False)
            single = (attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()
            for sparse in (*single, *attribute.sparse_tensors):
                yield TensorPlace(sparse.values, label, movable=False)
                yield TensorPlace(sparse.indices, label, movable=False)
            if attribute.type == AttributeProto.GRAPH:
                yield from _in_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _in_graph(graph)


def _is_movable(node: NodeProto, attribute: AttributeProto) -> bool:
    is_constant = node.op_type == "Constant" and node.domain in ("", "ai.onnx") and attribute.name == "value"
    return is_constant and attribute.t.data_type != TensorProto.STRING


def is_external(tensor: TensorProto) -> bool:
    """True if the tensor's values are in a file beside the model."""
    return tensor.data_location == TensorProto.EXTERNAL


def tensor_nbytes(tensor: TensorProto) -> int:
    """Bytes that the tensor's values need, from its dims and dtype (2, 4 and 6-bit values are packed).

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


def inline_bytes(tensor: TensorProto) -> bytes:
    """The little-endian bytes of a tensor that is not external, whichever field holds them.

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
            f"tensor '{tensor.name}': holds {len(data)} bytes, dims {list(tensor.dims)} need {needed}",
            "export the model again",
        )
    return data

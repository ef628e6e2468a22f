"""Rewrite a graph so that it computes in float16.

The result is that of `onnxconverter_common.float16.convert_float_to_float16` (1.16) without shape inference. Float32
tensors and values become float16. Ops and nodes on the block lists stay float32, with Casts around them. Inputs and
outputs of the model stay float32 behind Casts if `keep_io_types`. Casts of the original graph stay as they are, so a
Cast to float32 contradicts the values around it until `cast_repair` repairs it.

The algorithm is our own. A float value has a type that its node produces, and a type under its own name; each consumer
needs one of the two types. Where they differ there is one Cast per value, right behind its producer, so sorted nodes
stay sorted. Differences from that library:
- it never ends when 'Cast' is blocked, and casts around a blocked node only the values that have a `value_info`;
- it keeps an initializer float32 for all its consumers if one of them is blocked, and converts a Constant for all of
  them. Here a tensor stays float32 if only blocked nodes consume it; where both kinds do, the others get a Cast;
- it ignores `value_float` of Constants, the implicit value of ConstantOfShape, inputs that only subgraphs consume,
  subgraphs of blocked nodes, and nodes that consume an output of the model.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from artifacts.errors import StepError
from artifacts.graph.fp16_values import Fp16Rounding
from artifacts.graph.graph_lookup import all_names, free_name
from artifacts.graph.nodes import subgraphs
from artifacts.graph.tensors import inline_bytes, is_external, iter_tensors
from artifacts.untrusted.foreign_errors import foreign_errors

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


@dataclass(frozen=True)
class Fp16Options:
    """Nodes that stay float32, by op type and by name, and whether the model's inputs and outputs do."""

    op_block_list: frozenset[str]
    node_block_list: frozenset[str]
    keep_io_types: bool


@dataclass(frozen=True)
class Fp16Changes:
    """Number of tensors converted to float16 and of Casts inserted."""

    tensors: int
    casts: int


def rewrite_to_fp16(model: ModelProto, options: Fp16Options, rounding: Fp16Rounding) -> Fp16Changes:
    """Rewrite the model, whose nodes must be sorted, in place.

    Tensors in the protobuf are converted. External tensors only get their new data type. They still refer to their
    float32 bytes, twice as long, which must be converted when they are written.
    Raises StepError as `check_convertible` does, and if there is no tensor to convert.
    """
    check_convertible(model)
    rewriter = _Fp16Rewriter(options, rounding, all_names(model.graph))
    with foreign_errors("onnx", "types cannot be inferred", "export the model again"):
        typed = shape_inference.infer_shapes(model)
    rewriter.visit(model.graph, typed.graph, ChainMap(), blocked=False, io_half=not options.keep_io_types)
    if not rewriter.tensors:
        raise StepError("0 tensors converted to float16", "give a float32 model, and shorter block lists")
    return Fp16Changes(rewriter.tensors, rewriter.casts)


def check_convertible(model: ModelProto) -> None:
    """Raise StepError for a model that has float16 values already, or functions."""
    if model.functions:
        raise StepError(
            f"function '{model.functions[0].name}': functions are not converted",
            "export without export_modules_as_functions",
        )
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {value.type.tensor_type.elem_type for value in values} | {t.data_type for t in iter_tensors(model)}
    if FLOAT16 in types:
        raise StepError("the model has float16 values already", "convert the float32 model")


@dataclass(eq=False)
class _Value:
    """A float value. A Cast of it is inserted at `cast_index` among its graph's nodes.

    `half` says whether it is produced as float16, `named_half` whether its name stands for float16.
    """

    name: str
    cast_index: int
    half: bool
    named_half: bool
    producer: tuple[NodeProto, int] | None = None  # a node and which of its outputs
    tensor: TensorProto | None = None  # an initializer's or Constant's, whose type its consumers decide
    is_result: bool = False
    consumers: dict[bool, list[tuple[NodeProto, int]]] = field(default_factory=lambda: {False: [], True: []})


class _Fp16Rewriter:
    def __init__(self, options: Fp16Options, rounding: Fp16Rounding, names: set[str]) -> None:
        self.tensors = 0
        self.casts = 0
        self._options = options
        self._rounding = rounding
        self._names = names

    def visit(
        self, graph: GraphProto, typed: GraphProto, scope: ChainMap[str, _Value], *, blocked: bool, io_half: bool
    ) -> None:
        """Rewrite a graph or subgraph. `typed` is the graph with inferred types, `scope` the visible float values."""
        infos = {info.name: info for info in (*typed.value_info, *typed.output, *typed.input)}
        own = scope.maps[0]
        tensors = {tensor.name for tensor in graph.initializer}
        for entry in graph.input:
            if _is_float(entry) and entry.name not in tensors:  # old files list initializers among the inputs
                own[entry.name] = _Value(entry.name, 0, io_half, io_half)
        _define_initializers(graph, own)
        for index, (node, typed_node) in enumerate(zip(graph.node, typed.node, strict=True)):
            node_blocked = blocked or self._is_blocked(node)
            for position, name in enumerate(node.input):
                if name in scope:
                    scope[name].consumers[not node_blocked].append((node, position))
            for subgraph, typed_subgraph in zip(subgraphs(node), subgraphs(typed_node), strict=True):
                self.visit(subgraph, typed_subgraph, scope.new_child(), blocked=node_blocked, io_half=not node_blocked)
            constant = None if node_blocked else _constant_tensor(node)
            for position, name in enumerate(node.output):
                if name in infos and _is_float(infos[name]):
                    half = not node_blocked and (node.op_type != "Constant" or constant is not None)
                    own[name] = _Value(name, index + 1, half, half, (node, position), constant)
            if not node_blocked and node.op_type != "Constant":
                self._convert_attributes(node)
        for output in graph.output:
            if output.name in own:
                own[output.name].named_half, own[output.name].is_result = io_half, True
        for value in own.values():
            if value.tensor is not None:
                self._settle(value, value.tensor)
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.name in own:
                _set_type(info, half=own[info.name].named_half)
        self._insert_casts(graph, own, infos)

    def _is_blocked(self, node: NodeProto) -> bool:
        return node.op_type in self._options.op_block_list or node.name in self._options.node_block_list

    def _convert_attributes(self, node: NodeProto) -> None:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float32))
            node.attribute.append(helper.make_attribute("value", zero))
        for attribute in node.attribute:
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                if tensor.data_type == FLOAT:
                    self._convert(tensor)

    def _insert_casts(
        self, graph: GraphProto, own: MutableMapping[str, _Value], infos: dict[str, ValueInfoProto]
    ) -> None:
        casts: list[tuple[int, NodeProto]] = []
        for value in own.values():
            consumers = value.consumers[not value.named_half]
            if value.half == value.named_half and not consumers:
                continue
            other = free_name(f"{value.name}_{'fp32' if value.named_half else 'fp16'}", self._names)
            for node, position in consumers:
                node.input[position] = other
            if value.half == value.named_half:
                casts.append((value.cast_index, _cast(value.name, other, half=not value.named_half)))
            elif value.producer is not None:
                node, position = value.producer
                node.output[position] = other
                casts.append((value.cast_index, _cast(other, value.name, half=value.named_half)))
            if value.name in infos:
                info = graph.value_info.add()
                info.CopyFrom(infos[value.name])
                info.name = other
                _set_type(info, half=not value.named_half)
        self.casts += len(casts)
        for index, cast in sorted(casts, key=lambda item: item[0], reverse=True):
            graph.node.insert(index, cast)

    def _settle(self, value: _Value, tensor: TensorProto) -> None:
        if not value.is_result:
            value.named_half = not value.consumers[False]
        value.half = value.named_half
        if value.half:
            self._convert(tensor)

    def _convert(self, tensor: TensorProto) -> None:
        self.tensors += 1
        if not is_external(tensor):
            halves = self._rounding.convert(np.frombuffer(inline_bytes(tensor), np.float32))
            tensor.ClearField("float_data")
            tensor.raw_data = halves.tobytes()
        tensor.data_type = FLOAT16


def _define_initializers(graph: GraphProto, own: MutableMapping[str, _Value]) -> None:
    for tensor in graph.initializer:
        if tensor.data_type == FLOAT:
            own[tensor.name] = _Value(tensor.name, 0, True, True, tensor=tensor)
    for sparse in graph.sparse_initializer:
        if sparse.values.data_type == FLOAT:
            own[sparse.values.name] = _Value(sparse.values.name, 0, half=False, named_half=False)


def _constant_tensor(node: NodeProto) -> TensorProto | None:
    """Return the tensor of a float Constant. `value_float` and `value_floats` are turned into a tensor first."""
    if node.op_type != "Constant":
        return None
    attribute = node.attribute[0]
    if attribute.name in ("value_float", "value_floats"):
        values = np.array(helper.get_attribute_value(attribute), np.float32)
        attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))
    return attribute.t if attribute.name == "value" else None


def _cast(source: str, target: str, *, half: bool) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{source}_to_{target}", to=FLOAT16 if half else FLOAT)


def _is_float(info: ValueInfoProto) -> bool:
    return info.type.tensor_type.elem_type == FLOAT


def _set_type(info: ValueInfoProto, *, half: bool) -> None:
    info.type.tensor_type.elem_type = FLOAT16 if half else FLOAT

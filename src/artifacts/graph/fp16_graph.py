"""Rewrite a graph so that it computes in float16.

What is computed from features becomes float16, and so do the weights that it is combined with. Nodes on the block lists
stay float32, and so do ops that have no float16. Shape arithmetic and arithmetic on constants alone stay float32 too
(`value_types`): NeMo's encoder counts frames in floats, and integers in float16 are exact up to 2048 only. The types of
every node agree, so the result loads as it is. Inputs and outputs of the model stay float32 behind Casts if
`keep_io_types`. A float input of the model is a feature, whatever it means.

Tensors are rounded, and nodes blocked, as by `onnxconverter_common.float16.convert_float_to_float16` (1.16). A computed
length beyond float16 that meets features becomes infinite. The algorithm is our own (`type_plan`, `type_changes`). That
library
- leaves Casts inside the graph as they are, so that its result may not load before `cast_repair`, and rounds lengths;
- never ends when 'Cast' is blocked, and casts around a blocked node only the values that have a `value_info`;
- keeps an initializer float32 for all its consumers if one of them is blocked, and converts a Constant for all of
  them. Here a tensor stays float32 if only blocked nodes consume it; where both kinds do, the others get a Cast;
- ignores `value_float` of Constants, the implicit value of ConstantOfShape, inputs that only subgraphs consume,
  subgraphs of blocked nodes, and nodes that consume an output of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.fp16_values import Fp16Rounding
from artifacts.graph.nodes import subgraphs, topological_sort
from artifacts.graph.tensors import inline_bytes, is_external, iter_tensors
from artifacts.graph.type_changes import TypeChanges, change_types
from artifacts.graph.type_plan import TypePlan, check_no_functions, plan_types
from artifacts.graph.value_types import FLOAT, FLOAT16, Kind, Value


@dataclass(frozen=True)
class Fp16Options:
    """Nodes that stay float32, by op type and by name, and whether the model's inputs and outputs do."""

    keep_fp32_ops: frozenset[str]
    keep_fp32_nodes: frozenset[str]
    keep_io_types: bool

    def blocks(self, node: NodeProto) -> bool:
        """Return whether the node, with its subgraphs, stays float32."""
        return node.op_type in self.keep_fp32_ops or node.name in self.keep_fp32_nodes


@dataclass(frozen=True)
class Fp16Changes:
    """Number of tensors converted to float16, fill values included, and the changes of Casts."""

    tensors: int
    types: TypeChanges


def rewrite_to_fp16(model: ModelProto, options: Fp16Options, rounding: Fp16Rounding) -> Fp16Changes:
    """Rewrite the model in place.

    Tensors in the protobuf are converted. External tensors only get their new data type. They still refer to their
    float32 bytes, twice as long, which must be converted when they are written.
    Raises StepError as `check_convertible` and `plan_types` do, and if there is no tensor to convert.
    """
    check_convertible(model)
    _check_names(model.graph, options)
    topological_sort(model.graph)
    _write_constants_as_tensors(model.graph)
    if not options.keep_io_types:
        for entry in (*model.graph.input, *model.graph.output):
            if entry.type.tensor_type.elem_type == FLOAT:
                entry.type.tensor_type.elem_type = FLOAT16
    narrowed: list[TensorProto] = []

    def narrow(tensor: TensorProto) -> None:
        narrowed.append(tensor)
        if not is_external(tensor):
            halves = rounding.convert(np.frombuffer(inline_bytes(tensor), np.float32))
            tensor.ClearField("float_data")
            tensor.raw_data = halves.tobytes()
        tensor.data_type = FLOAT16

    types = change_types(model, _plan(model, options), narrow)
    if not narrowed:
        raise StepError("0 tensors converted to float16", "give a float32 model, and keep fewer nodes in float32")
    return Fp16Changes(len(narrowed), types)


def check_convertible(model: ModelProto) -> None:
    """Raise StepError for a model that has float16 values already, or functions."""
    check_no_functions(model)
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {value.type.tensor_type.elem_type for value in values} | {t.data_type for t in iter_tensors(model)}
    if FLOAT16 in types:
        raise StepError("the model has float16 values already", "convert the float32 model")


def _check_names(graph: GraphProto, options: Fp16Options) -> None:
    """Raise StepError for a node that the model does not have, and for an op that ONNX does not define."""
    known_ops = {schema.name for schema in defs.get_all_schemas_with_history()}
    for kind, names, known in (
        ("op", options.keep_fp32_ops, known_ops), ("node", options.keep_fp32_nodes, set(_node_names(graph))),
    ):  # fmt: skip
        for name in sorted(names - known):
            near = get_close_matches(name, sorted(known), n=1)
            fix = f"did you mean '{near[0]}'?" if near else f"name {kind}s of the model"
            raise StepError(f"no {kind} is called '{name}'", fix)


def _node_names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.name
        for subgraph in subgraphs(node):
            yield from _node_names(subgraph)


def _plan(model: ModelProto, options: Fp16Options) -> TypePlan:
    plan = plan_types(model, _agreed_type, options.blocks)
    exact = _tables_of_lengths(plan)
    if not exact:
        return plan

    def agree(group: Sequence[Value], floats: Sequence[Value]) -> int:
        is_exact = any(value.name in exact for value in floats) and all(
            value.kind is not Kind.FEATURE for value in floats
        )
        return FLOAT if is_exact else _agreed_type(group, floats)

    return plan_types(model, agree, options.blocks)


def _agreed_type(_group: Sequence[Value], floats: Sequence[Value]) -> int:
    """Return the type for float values that must agree.

    Features decide for all inputs of a node. Lengths, and what is computed from constants alone, are float32 until they
    are combined with features: tensors become float16 by what consumes them. Entries of a table are weights.
    """
    kinds = {value.kind for value in floats}
    if Kind.FEATURE in kinds:
        return FLOAT16
    return FLOAT16 if Kind.TABLE in kinds and Kind.LENGTH not in kinds else FLOAT


def _tables_of_lengths(plan: TypePlan) -> set[str]:
    """Return the names of values that are computed from tables in float16, and that integers or lengths depend on."""
    waiting = [*plan.sinks, *(value for value in plan.values if value.kind is Kind.LENGTH and value.is_float)]
    seen, found = set[int](), set[str]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not value.is_float:
            continue
        seen.add(id(value))
        waiting.extend(value.inputs)
        if value.kind is Kind.TABLE:
            found.add(value.name)
    return found


def _write_constants_as_tensors(graph: GraphProto) -> None:
    """Turn `value_float` and `value_floats` of Constants, which cannot be float16, into tensors."""
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                values = np.array(helper.get_attribute_value(attribute), np.float32)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))
        for subgraph in subgraphs(node):
            _write_constants_as_tensors(subgraph)

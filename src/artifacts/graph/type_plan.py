"""Plan the float type of each node of a half-converted graph, and so the type that each of its inputs must have.

Nothing is changed here. A node's inputs that share a type variable must agree. Where they do not, in this order:

1. an op that has no fp16 gets fp32;
2. next to features, weights decide: a converter leaves them fp32 only for a node that it was told to block;
3. without weights, features decide: fp16 if any of them is;
4. lengths alone (see `value_types`) are fp32, constants alone keep their type.

Lengths and single numbers take the type of the features that they are combined with.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from artifacts.errors import StepError
from artifacts.graph.graph_lookup import attribute_value
from artifacts.graph.nodes import subgraphs
from artifacts.graph.value_types import (
    FLOAT,
    FLOAT16,
    Kind,
    Use,
    Value,
    float_groups,
    is_float_type,
    is_sink,
    output_kind,
    output_types,
    schema_of,
    tensor_type,
    without_shape,
)

Scope = ChainMap[str, Value]
End = tuple[ValueInfoProto, Value]


@dataclass(frozen=True)
class _Entry:
    """Type and kind of a value that enters or leaves a subgraph, and the values that it stands for."""

    type: TypeProto
    kind: Kind
    sources: tuple[Value, ...] = ()


@dataclass
class TypePlan:
    """The values of a model, each behind the values that its node consumes, with the types wanted of it in `uses`.

    `sinks` are the lengths that a node turns into integers or booleans.
    """

    values: list[Value] = field(default_factory=list)
    sinks: list[Value] = field(default_factory=list)


def plan_types(model: ModelProto) -> TypePlan:
    """Return the plan for a model whose nodes are sorted. Outputs of the model keep their declared type.

    Raises StepError for a model that cannot be typed: an op that ONNX does not define, a function, an undefined value.
    """
    if model.functions:
        raise StepError(
            f"function '{model.functions[0].name}': types inside functions are not repaired",
            "export without export_modules_as_functions",
        )
    opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}
    planner = _Planner(opsets, model.ir_version)
    scope: Scope = ChainMap()
    tensors = {tensor.name for tensor in model.graph.initializer}
    for entry in model.graph.input:
        if entry.name in tensors:
            continue  # files of IR 3 list initializers among the inputs
        kind = Kind.FEATURE if is_float_type(entry.type) else Kind.LENGTH
        planner.define(scope, Value(entry.name, without_shape(entry.type), kind, model.graph))
    planner.visit_nodes(model.graph, scope)
    for output in model.graph.output:
        value = planner.find(scope, output.name, "the model's outputs")
        value.uses.append(Use(output, 0, output.type.tensor_type.elem_type, is_result=True))
    return planner.plan


def agreed_type(values: Sequence[Value]) -> int:
    """Return the type for float values that must agree, by rules 2 to 4 above."""
    features = {value.elem_type for value in values if value.kind is Kind.FEATURE}
    if features:
        weights = {v.elem_type for v in values if v.kind is Kind.CONSTANT and not v.is_scalar}
        if FLOAT in weights:
            return FLOAT
        return FLOAT16 if FLOAT16 in weights | features else FLOAT
    if all(value.kind is Kind.CONSTANT and value.elem_type == FLOAT16 for value in values):
        return FLOAT16
    return FLOAT


class _Planner:
    def __init__(self, opsets: dict[str, int], ir_version: int) -> None:
        self.plan = TypePlan()
        self._opsets = opsets
        self._ir_version = ir_version

    def define(self, scope: Scope, value: Value) -> None:
        if value.name:  # an omitted output has none
            scope[value.name] = value
            self.plan.values.append(value)

    def find(self, scope: Scope, name: str, consumer: str) -> Value:
        if name not in scope:
            raise StepError(f"{consumer}: nothing defines the value '{name}'", "export the model again")
        return scope[name]

    def visit_nodes(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            kind = Kind.CONSTANT
            self.define(scope, Value(tensor.name, tensor_type(tensor.data_type), kind, graph, tensor=tensor))
        for node in graph.node:
            inputs = [self.find(scope, name, f"node '{node.name}'") if name else None for name in node.input]
            if any(True for _ in subgraphs(node)):
                self._visit_control_flow(graph, node, inputs, scope)
            else:
                self._visit(graph, node, inputs, scope)

    def _visit(self, graph: GraphProto, node: NodeProto, inputs: Sequence[Value | None], scope: Scope) -> None:
        constant = next((a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"), None)
        if constant is not None:
            given = tensor_type(constant.data_type)
            self.define(scope, Value(node.output[0], given, Kind.CONSTANT, graph, node=node, tensor=constant))
            return
        schema = schema_of(node, self._opsets)
        wanted: list[TypeProto | None] = [None if value is None else value.type for value in inputs]
        for indices, takes_float16 in float_groups(schema, inputs):
            group = [value for index in indices if (value := inputs[index]) is not None]
            agreed = agreed_type(group) if takes_float16 else FLOAT
            for index, value in zip(indices, group, strict=True):
                value.uses.append(Use(node, index, agreed))
                wanted[index] = tensor_type(agreed)
        types = output_types(node, schema, wanted, self._opsets, self._ir_version)
        sources = tuple(value for value in inputs if value is not None)
        for name, given in zip(node.output, types, strict=True):
            kind = output_kind(node, sources, is_float=is_float_type(given))
            self.define(scope, Value(name, given, kind, graph, node, None, sources))
        if is_sink(node, sources, gives_float=any(is_float_type(given) for given in types)):
            self.plan.sinks.extend(sources)

    def _visit_control_flow(
        self, graph: GraphProto, node: NodeProto, inputs: Sequence[Value | None], scope: Scope
    ) -> None:
        if node.op_type == "If":
            branches = [self._visit_subgraph(subgraph, [], scope) for subgraph in subgraphs(node)]
            results = [_join(ends) for ends in zip(*branches, strict=True)]
        elif node.op_type in ("Loop", "Scan"):
            results = self._visit_loop(node, inputs, scope)
        else:
            raise StepError(
                f"node '{node.name}': the subgraphs of a {node.op_type} are not repaired", "export without it"
            )
        for name, entry in zip(node.output, results, strict=True):
            self.define(scope, Value(name, entry.type, entry.kind, graph, node, None, entry.sources))

    def _visit_loop(self, node: NodeProto, inputs: Sequence[Value | None], scope: Scope) -> list[_Entry]:
        """Visit a Loop or Scan. A carried value keeps the type that it enters with: the body casts it back."""
        entering = [_enter(node, index, value) for index, value in enumerate(inputs) if value is not None]
        if node.op_type == "Loop":  # inputs: trip count, condition, carried; of the body: iteration, condition, carried
            carried = entering[sum(value is not None for value in inputs[:2]) :]
            own = [_Entry(tensor_type(elem_type), Kind.LENGTH) for elem_type in (TensorProto.INT64, TensorProto.BOOL)]
            entering, body_outputs_before = [*own, *carried], 1
        else:  # inputs: carried, scanned; of the body too
            scanned = attribute_value(node, "num_scan_inputs", 0)
            carried, body_outputs_before = entering[: len(entering) - scanned], 0
        (body,) = subgraphs(node)
        ends = self._visit_subgraph(body, entering, scope)[body_outputs_before:]
        return [
            *(_carry(entry, end) for entry, end in zip(carried, ends, strict=False)),
            *(_join([end]) for end in ends[len(carried) :]),
        ]

    def _visit_subgraph(self, subgraph: GraphProto, entering: Sequence[_Entry], scope: Scope) -> list[End]:
        inner = scope.new_child()
        for value, entry in zip(subgraph.input, entering, strict=True):
            self.define(inner, Value(value.name, entry.type, entry.kind, subgraph, inputs=entry.sources))
        self.visit_nodes(subgraph, inner)
        label = f"subgraph '{subgraph.name}'"
        return [(output, self.find(inner, output.name, label)) for output in subgraph.output]


def _enter(node: NodeProto, index: int, value: Value) -> _Entry:
    """Return an input of a loop as its body sees it. It is not a constant there: it may change with each iteration."""
    kind = Kind.FEATURE if value.kind is Kind.FEATURE else Kind.LENGTH
    if not value.is_float:
        return _Entry(value.type, kind, (value,))
    wanted = value.elem_type if kind is Kind.FEATURE else FLOAT
    value.uses.append(Use(node, index, wanted))
    return _Entry(tensor_type(wanted), kind, (value,))


def _carry(entry: _Entry, end: End) -> _Entry:
    """Return the output of a loop for a value that enters the body as `entry` and leaves it as `end`."""
    output, value = end
    value.uses.append(Use(output, 0, entry.type.tensor_type.elem_type))
    kind = Kind.FEATURE if Kind.FEATURE in (entry.kind, value.kind) else Kind.LENGTH
    return _Entry(entry.type, kind, (*entry.sources, value))


def _join(ends: Sequence[End]) -> _Entry:
    """Return the output of a node for outputs of its subgraphs that stand for one value (the branches of an If)."""
    values = tuple(value for _, value in ends)
    kinds = {value.kind for value in values}
    kind = next(kind for kind in (Kind.FEATURE, Kind.LENGTH, Kind.CONSTANT) if kind in kinds)
    if not all(value.is_float for value in values):
        return _Entry(values[0].type, kind, values)
    wanted = agreed_type(values)
    for output, value in ends:
        value.uses.append(Use(output, 0, wanted))
    return _Entry(tensor_type(wanted), kind, values)

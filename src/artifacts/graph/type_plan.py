"""Plan the float type of each node of a graph, and so the type that each of its inputs must have.

Nothing is changed here. A node's inputs that share a type variable must agree. A node that is blocked, or whose op has
no fp16, gets fp32. The caller chooses the type of the others: `fp16_graph` to convert, `cast_repair` to repair the
conversion of another tool.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from artifacts.errors import StepError
from artifacts.graph.graph_lookup import attribute_value
from artifacts.graph.nodes import subgraphs
from artifacts.graph.value_types import (
    FLOAT,
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

# Returns the type, FLOAT or FLOAT16, for float values that must agree, given all float inputs of their node.
ChooseType = Callable[[Sequence[Value], Sequence[Value]], int]

# Returns whether a node, with its subgraphs, must stay fp32.
MustStayFp32 = Callable[[NodeProto], bool]

Scope = ChainMap[str, Value]
SubgraphOutput = tuple[ValueInfoProto, Value]


@dataclass(frozen=True)
class _BoundaryValue:
    """Type and kind of a value that enters or leaves a subgraph, and the values that it stands for."""

    type: TypeProto
    kind: Kind
    sources: tuple[Value, ...] = ()


@dataclass
class TypePlan:
    """The values of a model in the order of their definition. `uses` of each lists its consumers and their types.

    `sinks` are the inputs of nodes that turn floats other than features into integers or booleans.
    """

    values: list[Value] = field(default_factory=list)
    sinks: list[Value] = field(default_factory=list)


def plan_types(model: ModelProto, agree: ChooseType, blocks: MustStayFp32 = lambda _: False) -> TypePlan:
    """Return the plan for a model whose nodes are sorted. Inputs and outputs of the model keep their declared type.

    Raises StepError for a model that cannot be typed: an op that ONNX does not define, a function, an undefined value.
    """
    check_no_functions(model)
    opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}
    planner = _Planner(opsets, model.ir_version, agree, blocks)
    scope: Scope = ChainMap()
    tensors = {tensor.name for tensor in model.graph.initializer}
    for entry in model.graph.input:
        if entry.name in tensors:
            continue  # files of IR 3 list initializers among the inputs
        kind = Kind.FEATURE if is_float_type(entry.type) else Kind.LENGTH
        planner.define(scope, Value(entry.name, without_shape(entry.type), kind, model.graph))
    planner.visit_nodes(model.graph, scope, blocked=False)
    for output in model.graph.output:
        value = planner.find(scope, output.name, "the model's outputs")
        value.uses.append(Use(output, 0, output.type.tensor_type.elem_type, is_result=True))
    return planner.plan


def check_no_functions(model: ModelProto) -> None:
    """Raise StepError for a model that has functions: their values have the types of each call."""
    if model.functions:
        raise StepError(
            f"function '{model.functions[0].name}': functions are not converted",
            "export without export_modules_as_functions",
        )


class _Planner:
    def __init__(self, opsets: dict[str, int], ir_version: int, agree: ChooseType, blocks: MustStayFp32) -> None:
        self.plan = TypePlan()
        self._opsets = opsets
        self._ir_version = ir_version
        self._agree = agree
        self._blocks = blocks

    def define(self, scope: Scope, value: Value) -> None:
        if value.name:  # an omitted output has none
            scope[value.name] = value
            self.plan.values.append(value)

    def find(self, scope: Scope, name: str, consumer: str) -> Value:
        if name not in scope:
            raise StepError(f"{consumer}: nothing defines the value '{name}'", "export the model again")
        return scope[name]

    def visit_nodes(self, graph: GraphProto, scope: Scope, *, blocked: bool) -> None:
        for tensor in graph.initializer:
            self.define(scope, _constant(graph, tensor.name, tensor))
        for sparse in graph.sparse_initializer:
            self.define(scope, _constant(graph, sparse.values.name, sparse.values, is_blocked=True))
        for node in graph.node:
            inputs = [self.find(scope, name, f"node '{node.name}'") if name else None for name in node.input]
            node_blocked = blocked or self._blocks(node)
            if any(True for _ in subgraphs(node)):
                self._visit_control_flow(graph, node, inputs, scope, blocked=node_blocked)
            else:
                self._visit(graph, node, inputs, scope, blocked=node_blocked)

    def _visit(
        self, graph: GraphProto, node: NodeProto, inputs: Sequence[Value | None], scope: Scope, *, blocked: bool
    ) -> None:
        constant = next((a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"), None)
        if constant is not None:
            self.define(scope, _constant(graph, node.output[0], constant, node=node, is_blocked=blocked))
            return
        schema = schema_of(node, self._opsets)
        wanted: list[TypeProto | None] = [None if value is None else value.type for value in inputs]
        deciding = inputs[:1] if node.op_type == "CastLike" else inputs  # its second input gives the type alone
        floats = [value for value in deciding if value is not None and value.is_float]
        for indices, takes_float16 in float_groups(schema, inputs):
            group = [value for index in indices if (value := inputs[index]) is not None]
            agreed = self._agree(group, floats) if takes_float16 and not blocked else FLOAT
            for index, value in zip(indices, group, strict=True):
                value.uses.append(Use(node, index, agreed))
                wanted[index] = tensor_type(agreed)
        types = output_types(node, schema, wanted, self._opsets, self._ir_version)
        sources = tuple(value for value in inputs if value is not None)
        for given in types:
            if given.HasField("sequence_type") or given.HasField("optional_type"):
                raise StepError(
                    f"node '{node.name}': {node.op_type} gives a sequence or an optional", "export without them"
                )
        for name, given in zip(node.output, types, strict=True):
            kind = output_kind(node, sources, is_float=is_float_type(given))
            self.define(scope, Value(name, given, kind, graph, node, None, sources, blocked))
        if is_sink(node, sources, gives_float=any(is_float_type(given) for given in types)):
            self.plan.sinks.extend(sources)

    def _visit_control_flow(
        self, graph: GraphProto, node: NodeProto, inputs: Sequence[Value | None], scope: Scope, *, blocked: bool
    ) -> None:
        agree: ChooseType = (lambda _group, _floats: FLOAT) if blocked else self._agree
        if node.op_type == "If":
            branches = [self._visit_subgraph(subgraph, [], scope, blocked=blocked) for subgraph in subgraphs(node)]
            if len({len(ends) for ends in branches}) > 1:
                raise _subgraph_mismatch(node)
            results = [_join(ends, agree) for ends in zip(*branches, strict=True)]
        elif node.op_type in ("Loop", "Scan"):
            results = self._visit_loop(node, inputs, scope, agree, blocked=blocked)
        else:
            raise StepError(
                f"node '{node.name}': the subgraphs of a {node.op_type} are not converted", "export without it"
            )
        if len(results) != len(node.output):
            raise _subgraph_mismatch(node)
        for name, entry in zip(node.output, results, strict=True):
            self.define(scope, Value(name, entry.type, entry.kind, graph, node, None, entry.sources, blocked))

    def _visit_loop(
        self, node: NodeProto, inputs: Sequence[Value | None], scope: Scope, agree: ChooseType, *, blocked: bool
    ) -> list[_BoundaryValue]:
        """Visit a Loop or Scan. A carried value keeps the type that it enters with: the body casts it back."""
        entering = [_enter(node, index, value, agree) for index, value in enumerate(inputs) if value is not None]
        if node.op_type == "Loop":  # inputs: trip count, condition, carried; of the body: iteration, condition, carried
            carried = entering[sum(value is not None for value in inputs[:2]) :]
            own = [
                _BoundaryValue(tensor_type(elem_type), Kind.LENGTH)
                for elem_type in (TensorProto.INT64, TensorProto.BOOL)
            ]
            entering, body_outputs_before = [*own, *carried], 1
        else:  # inputs: carried, scanned; of the body too
            scanned = attribute_value(node, "num_scan_inputs", 0)
            carried, body_outputs_before = entering[: len(entering) - scanned], 0
        (body,) = subgraphs(node)
        if len(entering) != len(body.input):
            raise _subgraph_mismatch(node)
        ends = self._visit_subgraph(body, entering, scope, blocked=blocked)[body_outputs_before:]
        return [
            *(_carry(entry, end) for entry, end in zip(carried, ends, strict=False)),
            *(_join([end], agree) for end in ends[len(carried) :]),
        ]

    def _visit_subgraph(
        self, subgraph: GraphProto, entering: Sequence[_BoundaryValue], scope: Scope, *, blocked: bool
    ) -> list[SubgraphOutput]:
        inner = scope.new_child()
        for value, entry in zip(subgraph.input, entering, strict=True):
            self.define(inner, Value(value.name, entry.type, entry.kind, subgraph, inputs=entry.sources))
        self.visit_nodes(subgraph, inner, blocked=blocked)
        label = f"subgraph '{subgraph.name}'"
        return [(output, self.find(inner, output.name, label)) for output in subgraph.output]


def _subgraph_mismatch(node: NodeProto) -> StepError:
    return StepError(f"node '{node.name}': its subgraphs do not fit its inputs and outputs", "export the model again")


def _constant(
    graph: GraphProto, name: str, tensor: TensorProto, *, node: NodeProto | None = None, is_blocked: bool = False
) -> Value:
    return Value(name, tensor_type(tensor.data_type), Kind.CONSTANT, graph, node, tensor, is_blocked=is_blocked)


def _enter(node: NodeProto, index: int, value: Value, agree: ChooseType) -> _BoundaryValue:
    """Return an input of a loop as its body sees it. It is not a constant there: it may change with each iteration."""
    kind = Kind.FEATURE if value.kind is Kind.FEATURE else Kind.LENGTH
    if not value.is_float:
        return _BoundaryValue(value.type, kind, (value,))
    wanted = agree([value], [value]) if kind is Kind.FEATURE else FLOAT
    value.uses.append(Use(node, index, wanted))
    return _BoundaryValue(tensor_type(wanted), kind, (value,))


def _carry(entry: _BoundaryValue, end: SubgraphOutput) -> _BoundaryValue:
    """Return the output of a loop for a value that enters the body as `entry` and leaves it as `end`."""
    output, value = end
    value.uses.append(Use(output, 0, entry.type.tensor_type.elem_type))
    kind = Kind.FEATURE if Kind.FEATURE in (entry.kind, value.kind) else Kind.LENGTH
    return _BoundaryValue(entry.type, kind, (*entry.sources, value))


def _join(ends: Sequence[SubgraphOutput], agree: ChooseType) -> _BoundaryValue:
    """Return the output of a node for outputs of its subgraphs that stand for one value (the branches of an If)."""
    values = tuple(value for _, value in ends)
    kinds = {value.kind for value in values}
    kind = next(kind for kind in (Kind.FEATURE, Kind.LENGTH, Kind.TABLE, Kind.CONSTANT) if kind in kinds)
    if not all(value.is_float for value in values):
        return _BoundaryValue(values[0].type, kind, values)
    wanted = agree(values, values)
    for output, value in ends:
        value.uses.append(Use(output, 0, wanted))
    return _BoundaryValue(tensor_type(wanted), kind, values)

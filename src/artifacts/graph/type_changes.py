"""Give each consumer of a value the float type that a plan wants for it, with the fewest Casts.

A value that has the type stays. If all its consumers need the other type, the value is retyped where it is defined: by
a tensor, a Cast or a fill value, perhaps followed by ops that only move numbers. Otherwise a Cast is inserted.
A Cast between the two float types is never stacked on another: consumers are connected to the Cast's own input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.graph_lookup import all_names, free_name
from artifacts.graph.nodes import subgraphs, topological_sort
from artifacts.graph.tensors import inline_bytes, is_external
from artifacts.graph.type_plan import TypePlan
from artifacts.graph.value_types import FLOAT, FLOAT16, Kind, Use, Value

# Ops that return numbers of one input, unchanged: a Cast in front of them equals a Cast behind them.
_MOVES = frozenset(
    {
        "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip

_SUFFIX: dict[int, str] = {FLOAT: "fp32", FLOAT16: "fp16"}


# Makes an fp32 tensor fp16, and rounds its numbers unless they are external.
Narrow = Callable[[TensorProto], None]


@dataclass
class TypeChanges:
    """Number of Casts and constants changed.

    `casts_kept` counts the Casts to fp32 that remain, `length_nodes` the nodes that compute float lengths.
    """

    casts_changed: int = 0
    casts_inserted: int = 0
    casts_removed: int = 0
    casts_kept: int = 0
    constants_widened: int = 0
    length_nodes: int = 0


def change_types(model: ModelProto, plan: TypePlan, narrow: Narrow | None = None) -> TypeChanges:
    """Carry out the plan of the model, in place.

    Without `narrow`, no tensor and no fill value is rounded: a Cast is inserted where fp16 is not exact. Afterwards the
    types of every node agree, nodes are sorted, and no value_info is left. Raises StepError for a value that is an
    fp32 input and an fp16 output of the model at once.
    """
    changer = _TypeChanger(model, narrow)
    for value in reversed(plan.values):  # consumers first: they may be connected to an earlier value
        if value.is_float:
            changer.visit(value)
    _declare_tensors(model.graph)
    _drop_value_info(model.graph)
    topological_sort(model.graph)
    return changer.changes


class _TypeChanger:
    def __init__(self, model: ModelProto, narrow: Narrow | None) -> None:
        self.changes = TypeChanges()
        self._narrow = narrow
        self._names = all_names(model.graph)

    def visit(self, value: Value) -> None:
        _declare(value)
        self._settle(value)

    def _settle(self, value: Value) -> None:
        """Give each consumer of the value the type that it needs."""
        other = FLOAT16 if value.elem_type == FLOAT else FLOAT
        mismatched = [use for use in value.uses if use.wanted == other]
        is_cast = value.node is not None and value.node.op_type == "Cast"
        if mismatched:
            all_mismatched = len(mismatched) == len(value.uses)
            # An output of a graph must be a value of that graph, so its Cast stays.
            is_inside = all(isinstance(use.consumer, NodeProto) for use in mismatched)
            if is_cast and value.inputs[0].is_float and is_inside:
                self._bypass(value, mismatched)
                if all_mismatched:
                    self._remove(value)
                    return
            elif all_mismatched and self._retype(value, other):
                self.changes.casts_changed += is_cast
                return
            elif not (other == FLOAT16 and self._narrow_copy(value, mismatched)):
                self._insert_cast(value, other, mismatched)
        self.changes.casts_kept += is_cast and value.elem_type == FLOAT
        self.changes.length_nodes += value.kind is Kind.LENGTH and not is_cast

    def _bypass(self, cast: Value, uses: list[Use]) -> None:
        """Connect these consumers of a Cast from float to float to its input."""
        (source,) = cast.inputs
        for use in uses:
            cast.uses.remove(use)
            _connect(use, source.name)
        source.uses.extend(uses)

    def _remove(self, cast: Value) -> None:
        (source,) = cast.inputs
        source.uses = [use for use in source.uses if use.consumer is not cast.node]
        cast.graph.node.remove(cast.node)
        self.changes.casts_removed += 1

    def _retype(self, value: Value, other: int) -> bool:
        """Give a value another type where it is defined. Return False where that is impossible, or not exact."""
        if value.is_blocked:
            return False
        if value.tensor is not None:
            self.changes.constants_widened += other == FLOAT and not is_external(value.tensor)
            return self._convert(value.tensor, other)
        if value.node is None:
            return False
        attributes = {attribute.name: attribute for attribute in value.node.attribute}
        if value.node.op_type == "Cast":
            attributes["to"].i = other
            return True
        if value.node.op_type == "ConstantOfShape":
            if "value" not in attributes:
                zero = helper.make_tensor("value", other, [1], [0.0])
                value.node.attribute.append(helper.make_attribute("value", zero))
                return True
            return self._convert(attributes["value"].t, other)
        # If a table cannot be narrowed, cast only the entries that are selected.
        constant = value.kind in (Kind.CONSTANT, Kind.TABLE)
        if value.node.op_type in _MOVES and (not constant or self._narrow is not None):
            for source in value.inputs:
                for use in source.uses:
                    if use.consumer is value.node:
                        use.wanted = other
            return True
        return False

    def _narrow_copy(self, value: Value, uses: list[Use]) -> bool:
        """Give consumers that need fp16 a rounded copy of a tensor: a Cast turns numbers beyond fp16 into infinity."""
        if value.tensor is None or self._narrow is None or is_external(value.tensor) or value.is_blocked:
            return False
        if any(use.is_result for use in uses):
            return False
        copy = value.graph.initializer.add()
        copy.CopyFrom(value.tensor)
        copy.name = free_name(f"{value.name}_{_SUFFIX[FLOAT16]}", self._names, numbered=True)
        self._narrow(copy)
        for use in uses:
            _connect(use, copy.name)
        return True

    def _convert(self, tensor: TensorProto, other: int) -> bool:
        if other == FLOAT16 and self._narrow is not None:
            self._narrow(tensor)
            return True
        return not is_external(tensor) and _convert_exactly(tensor, other)

    def _insert_cast(self, value: Value, other: int, uses: list[Use]) -> None:
        """Add a Cast to the other type. A number that was cast from an integer is cast from it again: rounded once."""
        result = next((use.consumer.name for use in uses if use.is_result), None)
        if result is None:
            name = free_name(f"{value.name}_{_SUFFIX[other]}", self._names, numbered=True)
        else:  # the Cast defines the model's output, so its input needs another name
            name = result
            self._rename(value, free_name(f"{value.name}_{_SUFFIX[value.elem_type]}", self._names, numbered=True))
        is_cast = value.node is not None and value.node.op_type == "Cast" and not value.inputs[0].is_float
        source = value.inputs[0].name if is_cast else value.name
        node_name = free_name(name, self._names, numbered=True)
        value.graph.node.append(helper.make_node("Cast", [source], [name], name=node_name, to=other))
        for use in uses:
            _connect(use, name)
        self.changes.casts_inserted += 1

    def _rename(self, value: Value, name: str) -> None:
        if value.node is not None:
            value.node.output[list(value.node.output).index(value.name)] = name
        elif value.tensor is not None:
            for entry in (value.tensor, *(entry for entry in value.graph.input if entry.name == value.name)):
                entry.name = name
        else:
            raise StepError(
                f"value '{value.name}': is an fp32 input and an fp16 output of the model",
                "convert with keep_io_types: true",
            )
        value.name = name
        for use in value.uses:
            _connect(use, name)


def _declare(value: Value) -> None:
    """Correct the declared types where the value is an input of a graph, or an output."""
    if value.node is None and value.tensor is None:
        declared = next(entry for entry in value.graph.input if entry.name == value.name)
        declared.type.tensor_type.elem_type = value.elem_type
    for use in value.uses:
        if isinstance(use.consumer, ValueInfoProto):
            use.consumer.type.tensor_type.elem_type = use.wanted


def _connect(use: Use, name: str) -> None:
    if isinstance(use.consumer, NodeProto):
        use.consumer.input[use.index] = name
    else:
        use.consumer.name = name


def _convert_exactly(tensor: TensorProto, elem_type: int) -> bool:
    """Give an inline tensor another float type. Return False, and change nothing, if its values would be rounded."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    numbers = np.frombuffer(inline_bytes(tensor), dtype).reshape(tuple(tensor.dims))
    converted = numbers.astype(helper.tensor_dtype_to_np_dtype(elem_type))
    if not np.array_equal(numbers, converted, equal_nan=True):
        return False
    tensor.CopyFrom(numpy_helper.from_array(converted, tensor.name))
    return True


def _declare_tensors(graph: GraphProto) -> None:
    """Correct the declared types of initializers that are listed among the inputs (as in files of IR 3)."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for entry in graph.input:
        if entry.name in types:
            entry.type.tensor_type.elem_type = types[entry.name]


def _drop_value_info(graph: GraphProto) -> None:
    del graph.value_info[:]
    for node in graph.node:
        for subgraph in subgraphs(node):
            _drop_value_info(subgraph)

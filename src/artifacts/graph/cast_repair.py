"""Makes the float types of a half-converted graph agree, with the fewest Casts.

`plan_types` says which type each reader wants of a value. A value that is wanted as it is stays; one that every reader
wants otherwise is made otherwise, if it comes from a Cast, a fill value or a small constant, be it by way of ops that
only move numbers; the rest gets a Cast.
A Cast between the two floats is never stacked on another: readers are led back to where the number came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.length_cone import check_exact
from artifacts.graph.node_order import bodies, sort_nodes
from artifacts.graph.tensor_reader import TensorReader
from artifacts.graph.tensors import inline_bytes, is_external
from artifacts.graph.type_plan import plan_types
from artifacts.graph.value_types import FLOAT, FLOAT16, Kind, Use, Value, tensor_type

_MOVES = frozenset(
    {
        "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Ops that give back numbers of one input, unchanged: the same, cast before or after."""

_SUFFIX: dict[int, str] = {FLOAT: "fp32", FLOAT16: "fp16"}


@dataclass
class Repairs:
    """How much was changed. `casts_kept`: Casts to fp32 that were right. `count_nodes`: nodes that count, in fp32."""

    casts_changed: int = 0
    casts_inserted: int = 0
    casts_removed: int = 0
    casts_kept: int = 0
    constants_widened: int = 0
    inputs_restored: int = 0
    count_nodes: int = 0


def repair_casts(model: ModelProto, reader: TensorReader) -> Repairs:
    """Repair the model in place. `reader` reads its external tensors.

    Afterwards every node's types agree, the model's inputs are fp32 and its outputs as declared, arithmetic on counts
    is fp32, nodes are sorted and no value_info is left. Raises StepError for what cannot be typed or kept exact, and
    for a value that is an input and a float16 output of the model at once.
    """
    sort_nodes(model.graph)
    repair = _Repair(model)
    check_exact(repair.plan.sinks, reader)
    repair.apply()
    sort_nodes(model.graph)
    return repair.repairs


class _Repair:
    def __init__(self, model: ModelProto) -> None:
        self.plan = plan_types(model)
        self.repairs = Repairs()
        self._model = model
        self._names = {
            name for value in self.plan.values for name in (value.name, value.node.name if value.node else "")
        }

    def apply(self) -> None:
        for value in reversed(self.plan.values):  # readers before what they read: a reader may be led further back
            if value.is_float:
                self._declare(value)
                self._settle(value)
        _declare_tensors(self._model.graph)
        _drop_value_info(self._model.graph)

    def _declare(self, value: Value) -> None:
        """Bring declarations in line: of the model's inputs (fp32 again), and of the inputs and outputs of bodies."""
        if value.node is None and value.tensor is None:
            if value.graph is self._model.graph and value.elem_type == FLOAT16:
                value.type = tensor_type(FLOAT)
                self.repairs.inputs_restored += 1
            declared = next(given for given in value.graph.input if given.name == value.name)
            declared.type.tensor_type.elem_type = value.elem_type
        for use in value.uses:
            if isinstance(use.holder, ValueInfoProto):
                use.holder.type.tensor_type.elem_type = use.wanted

    def _settle(self, value: Value) -> None:
        """See that each reader of the value gets the type it wants."""
        other = FLOAT16 if value.elem_type == FLOAT else FLOAT
        strangers = [use for use in value.uses if use.wanted == other]
        is_cast = value.node is not None and value.node.op_type == "Cast"
        if strangers:
            nobody_else = len(strangers) == len(value.uses)
            if is_cast and value.inputs[0].is_float and not any(use.is_result for use in strangers):
                self._lead_back(value, strangers)
                if nobody_else:
                    self._remove(value)
                    return
            elif nobody_else and self._retype(value, other):
                self.repairs.casts_changed += is_cast
                return
            else:
                self._insert_cast(value, other, strangers)
        self.repairs.casts_kept += is_cast and value.elem_type == FLOAT
        self.repairs.count_nodes += value.kind is Kind.COUNT and not is_cast

    def _lead_back(self, cast: Value, uses: list[Use]) -> None:
        """Let these readers of a Cast from float to float read what it was cast from."""
        (source,) = cast.inputs
        for use in uses:
            cast.uses.remove(use)
            _point(use, source.name)
        source.uses.extend(uses)

    def _remove(self, cast: Value) -> None:
        (source,) = cast.inputs
        source.uses = [use for use in source.uses if use.holder is not cast.node]
        cast.graph.node.remove(cast.node)
        self.repairs.casts_removed += 1

    def _retype(self, value: Value, other: int) -> bool:
        """Give a value another type where it is made. Returns False where that cannot be done, or not exactly."""
        if value.tensor is not None:
            if other != FLOAT or is_external(value.tensor):
                return False
            self.repairs.constants_widened += 1
            return _convert(value.tensor, other)
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
            return _convert(attributes["value"].t, other)
        if value.node.op_type in _MOVES and value.kind is not Kind.CONSTANT:  # of a table, only what was read is cast
            for source in value.inputs:
                for use in source.uses:
                    if use.holder is value.node:
                        use.wanted = other
            return True
        return False

    def _insert_cast(self, value: Value, other: int, uses: list[Use]) -> None:
        """Add a Cast to the other type. A number from an integer is cast from that again, and so rounded once."""
        result = next((use.holder.name for use in uses if use.is_result), None)
        if result is None:
            name = self._free_name(f"{value.name}_{_SUFFIX[other]}")
        else:  # the Cast gives the model's output, so what it reads needs another name
            name = result
            self._rename(value, self._free_name(f"{value.name}_{_SUFFIX[value.elem_type]}"))
        is_cast = value.node is not None and value.node.op_type == "Cast"
        source = value.inputs[0].name if is_cast else value.name
        value.graph.node.append(helper.make_node("Cast", [source], [name], name=self._free_name(name), to=other))
        for use in uses:
            _point(use, name)
        self.repairs.casts_inserted += 1

    def _rename(self, value: Value, name: str) -> None:
        if value.node is not None:
            value.node.output[list(value.node.output).index(value.name)] = name
        elif value.tensor is not None:
            for held in (value.tensor, *(given for given in value.graph.input if given.name == value.name)):
                held.name = name
        else:
            raise StepError(
                f"value '{value.name}': as an input of the model it is to be fp32, as an output fp16",
                "convert with keep_io_types: true",
            )
        value.name = name
        for use in value.uses:
            _point(use, name)

    def _free_name(self, wish: str) -> str:
        candidates = (wish, *(f"{wish}_{number}" for number in range(2, len(self._names) + 3)))
        name = next(name for name in candidates if name not in self._names)
        self._names.add(name)
        return name


def _point(use: Use, name: str) -> None:
    if isinstance(use.holder, NodeProto):
        use.holder.input[use.index] = name
    else:
        use.holder.name = name


def _convert(tensor: TensorProto, elem_type: int) -> bool:
    """Give an inline tensor another float type. Returns False, changing nothing, if its values would be rounded."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    numbers = np.frombuffer(inline_bytes(tensor), dtype).reshape(tuple(tensor.dims))
    converted = numbers.astype(helper.tensor_dtype_to_np_dtype(elem_type))
    if not np.array_equal(numbers, converted, equal_nan=True):
        return False
    tensor.CopyFrom(numpy_helper.from_array(converted, tensor.name))
    return True


def _declare_tensors(graph: GraphProto) -> None:
    """Bring the declarations of initializers that are listed among the inputs (as in files of IR 3) in line."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for given in graph.input:
        if given.name in types:
            given.type.tensor_type.elem_type = types[given.name]


def _drop_value_info(graph: GraphProto) -> None:
    del graph.value_info[:]
    for node in graph.node:
        for body in bodies(node):
            _drop_value_info(body)

"""Make the float types of a model agree that another converter left half-converted to fp16.

What the converter did says what it was told. Where inputs of a node must agree and do not, in this order:

1. an op that has no fp16 gets fp32;
2. next to features, weights decide: a converter leaves them fp32 only for a node that it was told to block;
3. without weights, features decide: fp16 if any of them is;
4. lengths alone (see `value_types`) are fp32, constants alone keep their type.

Lengths and single numbers take the type of the features that they are combined with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from artifacts.graph.nodes import topological_sort
from artifacts.graph.tensor_content import TensorReader
from artifacts.graph.type_changes import TypeChanges, change_types
from artifacts.graph.type_plan import plan_types
from artifacts.graph.value_types import FLOAT, FLOAT16, Kind, Value, check_exact, tensor_type

if TYPE_CHECKING:
    from onnx import ModelProto


_CONSTANTS = (Kind.CONSTANT, Kind.TABLE)


@dataclass
class Repairs(TypeChanges):
    """Number of changes, and of fp16 inputs of the model that became fp32 again."""

    inputs_restored: int = 0


def repair_casts(model: ModelProto, reader: TensorReader) -> Repairs:
    """Repair the model in place. `reader` reads its external tensors.

    Afterwards every node's types agree, the model's inputs are fp32, and its outputs are as declared. Shape arithmetic
    is fp32, nodes are sorted, and no value_info is left. Raises StepError for a model that cannot be typed or kept
    exact, and for a value that is an input and a float16 output of the model at once.
    """
    topological_sort(model.graph)
    plan = plan_types(model, agreed_type)
    check_exact(plan.sinks, reader)
    fp16_inputs = [value for value in plan.values if _is_input(value, model) and value.elem_type == FLOAT16]
    for value in fp16_inputs:
        value.type = tensor_type(FLOAT)
    return Repairs(**asdict(change_types(model, plan)), inputs_restored=len(fp16_inputs))


def agreed_type(values: Sequence[Value], _floats: Sequence[Value] = ()) -> int:
    """Return the type for float values that must agree, by rules 2 to 4 above."""
    features = {value.elem_type for value in values if value.kind is Kind.FEATURE}
    if features:
        weights = {v.elem_type for v in values if v.kind in _CONSTANTS and not v.is_scalar}
        if FLOAT in weights:
            return FLOAT
        return FLOAT16 if FLOAT16 in weights | features else FLOAT
    if all(value.kind in _CONSTANTS and value.elem_type == FLOAT16 for value in values):
        return FLOAT16
    return FLOAT


def _is_input(value: Value, model: ModelProto) -> bool:
    return value.graph is model.graph and value.node is None and value.tensor is None

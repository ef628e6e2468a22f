"""Values of a graph: their types, and whether they are part of shape arithmetic.

Types are propagated from the graph's inputs and tensors through the schema of each op. Types that the file declares in
between are ignored: other converters write a graph that contradicts itself, with Casts to fp32 in front of fp16
weights. That needs no weights: the memory is that of the protobuf, whatever the model's size.

Shape arithmetic must stay exact. NeMo's encoder computes the length of its output and the masks of padding from the
length of its features in floats (Cast, Add, Div, Cast back). An fp16 integer is exact up to 2048 only, so this
arithmetic stays fp32. A float that is computed from integers and constants alone is a length, until it is combined
with features. To look up a table of weights by an integer index is not arithmetic: embeddings are weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, defs, helper, shape_inference

from artifacts.errors import StepError
from artifacts.graph.tensor_content import TensorReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT = TensorProto.FLOAT
FLOAT16 = TensorProto.FLOAT16

# A constant whose significand needs at most this many of fp16's 11 bits was not rounded: 1, 2, 0.5, 160, but not 0.1.
# One in sixteen rounded numbers would look so by chance.
EXACT_BITS = 7
_SMALLEST_NORMAL = 2.0**-14


class Kind(Enum):
    """Origin of a value: what it is computed from."""

    CONSTANT = "constants alone"
    TABLE = "entries of a table of constants, selected by integers"
    LENGTH = "integers and constants"
    FEATURE = "features"


@dataclass(eq=False)
class Use:
    """A consumer of a value: input `index` of a node, or an output of a graph. `wanted` is the type that it needs.

    `is_result` marks the outputs of the model itself, whose names are fixed.
    """

    consumer: NodeProto | ValueInfoProto
    index: int
    wanted: int
    is_result: bool = False


@dataclass(eq=False)
class Value:
    """A value with its definition and its uses.

    `graph` is the graph or subgraph that defines it: by `node`, by `tensor` (an initializer's, or a Constant's), or, if
    both are None, as its input. `inputs` are the values that it is computed from: the inputs of its node, or, for
    outputs of a node with subgraphs and for inputs of a subgraph, the values that they stand for. `is_blocked` says
    that it must be defined as it is: by a node that stays fp32, or by a sparse tensor.
    """

    name: str
    type: TypeProto
    kind: Kind
    graph: GraphProto
    node: NodeProto | None = None
    tensor: TensorProto | None = None
    inputs: tuple[Value, ...] = ()
    is_blocked: bool = False
    uses: list[Use] = field(default_factory=list)

    @property
    def elem_type(self) -> int:
        """The element type of a tensor; 0 for sequences and the like."""
        return self.type.tensor_type.elem_type

    @property
    def is_float(self) -> bool:
        """Whether the value is a tensor of fp32 or fp16."""
        return is_float_type(self.type)

    @property
    def is_scalar(self) -> bool:
        """Whether the value is known to be a single number, as the constants of arithmetic are and weights are not."""
        if self.tensor is not None:
            return bool(prod(self.tensor.dims) == 1)
        return self.node is not None and self.node.op_type == "Constant"  # its numbers are attributes


def tensor_type(elem_type: int) -> TypeProto:
    """Return the type of a tensor of any shape. Shapes play no part here."""
    return helper.make_tensor_type_proto(elem_type, None)


def is_float_type(given: TypeProto) -> bool:
    """Return whether the type is fp32 or fp16."""
    return given.tensor_type.elem_type in (FLOAT, FLOAT16)


def without_shape(given: TypeProto) -> TypeProto:
    """Return a copy of the type without a tensor's shape."""
    kept = TypeProto()
    kept.CopyFrom(given)
    if kept.HasField("tensor_type"):
        kept.tensor_type.ClearField("shape")
    return kept


def schema_of(node: NodeProto, opsets: Mapping[str, int]) -> defs.OpSchema:
    """Return the schema of the node's op at the model's opset. Raises StepError for an op that ONNX does not define."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in opsets or not defs.has(node.op_type, domain):
        raise StepError(
            f"node '{node.name}': '{domain or 'ai.onnx'}:{node.op_type}' is not an op of ONNX",
            "convert the exported model to fp16 before other tools add their own ops",
        )
    return defs.get_schema(node.op_type, opsets[domain], domain)


def float_groups(schema: defs.OpSchema, inputs: Sequence[Value | None]) -> list[tuple[list[int], bool]]:
    """Return the indices of a node's float inputs, grouped by the type variable that makes them agree.

    Each group comes with whether the schema allows float16.
    """
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    groups: dict[str, list[int]] = {}
    for index, value in enumerate(inputs):
        if value is not None and value.is_float:
            formal = schema.inputs[min(index, len(schema.inputs) - 1)]
            key = formal.type_str if formal.is_homogeneous else f"{formal.type_str}:{index}"
            groups.setdefault(key, []).append(index)
    return [(indices, "tensor(float16)" in allowed.get(key.split(":")[0], [key])) for key, indices in groups.items()]


def output_types(
    node: NodeProto,
    schema: defs.OpSchema,
    inputs: Sequence[TypeProto | None],
    opsets: Mapping[str, int],
    ir_version: int,
) -> list[TypeProto]:
    """Return the type of each output of the node, by ONNX's own inference for its op, without shapes.

    Raises StepError if the op does not take these types.
    """
    probe = NodeProto(op_type=node.op_type, domain=node.domain, output=node.output, attribute=node.attribute)
    probe.input.extend("" if given is None else f"input {index}" for index, given in enumerate(inputs))
    given_types = {name: given for name, given in zip(probe.input, inputs, strict=True) if given is not None}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        found = shape_inference.infer_node_outputs(
            schema, probe, given_types, opset_imports=imports, ir_version=ir_version
        )
    except Exception as error:  # onnx raises classes of its C++ part, which are not public
        raise _untyped(node, str(error)) from error
    untyped = [name for name in node.output if name and name not in found]
    if untyped:
        raise _untyped(node, f"its output '{untyped[0]}' gets no type")
    return [without_shape(found[name]) if name else TypeProto() for name in node.output]


def _untyped(node: NodeProto, reason: str) -> StepError:
    return StepError(
        f"node '{node.name}': {node.op_type} cannot be typed: {' '.join(reason.split())}", "export the model again"
    )


def output_kind(node: NodeProto, inputs: Sequence[Value], *, is_float: bool) -> Kind:
    """Return the kind of an output of the node, given the kinds of its inputs."""
    if node.op_type == "CastLike":  # its second input gives the type alone
        inputs = inputs[:1]
    floats = [value for value in inputs if value.is_float]
    kinds = {value.kind for value in floats}
    if all(value.kind is Kind.CONSTANT for value in inputs) and not node.op_type.startswith("Random"):
        return Kind.CONSTANT
    if not is_float:
        return Kind.LENGTH
    if Kind.FEATURE in kinds or node.op_type.startswith("Random"):
        return Kind.FEATURE
    if kinds == {Kind.CONSTANT} and not all(value.is_scalar for value in floats):
        return Kind.TABLE
    return Kind.TABLE if Kind.TABLE in kinds and Kind.LENGTH not in kinds else Kind.LENGTH


def is_sink(node: NodeProto, inputs: Sequence[Value], *, gives_float: bool) -> bool:
    """Return whether the node turns floats other than features into integers or booleans: arithmetic ends there."""
    kinds = {value.kind for value in inputs if value.is_float}
    only_shape = node.op_type in ("Shape", "Size")
    return bool(kinds) and Kind.FEATURE not in kinds and not gives_float and not only_shape


def check_exact(sinks: Iterable[Value], reader: TensorReader) -> None:
    """Check that no fp16 constant on the way to the sinks can have been rounded: to widen it would not restore it.

    Raises StepError that names the constant.
    """
    waiting, seen = list(sinks), set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not value.is_float:
            continue
        seen.add(id(value))
        waiting.extend(value.inputs)
        if value.tensor is None or value.elem_type != FLOAT16:
            continue
        numbers = reader.array(value.tensor)
        rounded = numbers[~_is_exact(numbers)]
        if rounded.size:
            consumers = [use.consumer for use in value.uses if isinstance(use.consumer, NodeProto)]
            nodes = [value.node] if value.node else consumers
            blocked = ", ".join(f"'{node.name}'" for node in nodes)
            raise StepError(
                f"'{value.name}': {rounded.flat[0]} decides an integer and may have been rounded to fp16",
                f"add {blocked} to keep_fp32_nodes of convert_fp16",
            )


def _is_exact(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    wide = np.abs(numbers.astype(np.float64))
    scaled = np.frexp(wide)[0] * 2.0**EXACT_BITS
    is_short = (wide >= _SMALLEST_NORMAL) & (scaled == np.floor(scaled))
    return np.asarray(is_short | (wide == 0), dtype=np.bool_)

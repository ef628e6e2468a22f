"""Values of a graph and their types, one node at a time.

A graph that was converted to fp16 contradicts itself: its Casts say fp32, its weights fp16. Types are therefore
propagated here, from the graph's inputs and tensors through the schema of each op, and nothing that the file declares
in between is believed. That needs no weights, so a model of any size costs the size of its protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import prod

from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, defs, helper, shape_inference

from artifacts.errors import StepError

FLOAT = TensorProto.FLOAT
FLOAT16 = TensorProto.FLOAT16


class Kind(Enum):
    """What the numbers of a value are made of: see `length_cone`."""

    CONSTANT = "constants alone"
    COUNT = "integers and constants"
    SIGNAL = "features"


@dataclass(eq=False)
class Use:
    """A place that reads a value: input `index` of a node, or an output of a graph; `wanted` is the type it needs.

    `is_result` marks the outputs of the model itself, whose names are fixed.
    """

    holder: NodeProto | ValueInfoProto
    index: int
    wanted: int
    is_result: bool = False


@dataclass(eq=False)
class Value:
    """A value, where it is defined and who reads it.

    `graph` is the graph (or body) that defines it: by `node`, by `tensor` (an initializer's, or a Constant's), or, if
    both are None, as its input. `inputs` are the values that it is made of: what its node reads, or for outputs of a
    node with bodies and for inputs of a body, the values that they stand for.
    """

    name: str
    type: TypeProto
    kind: Kind
    graph: GraphProto
    node: NodeProto | None = None
    tensor: TensorProto | None = None
    inputs: tuple[Value, ...] = ()
    uses: list[Use] = field(default_factory=list)

    @property
    def elem_type(self) -> int:
        """The element type of a tensor; 0 for sequences and the like."""
        return self.type.tensor_type.elem_type

    @property
    def is_float(self) -> bool:
        """True for a tensor of fp32 or fp16."""
        return is_float_type(self.type)

    @property
    def is_scalar(self) -> bool:
        """True if the value is known to be a number as the constants of arithmetic are, and weights are not."""
        if self.tensor is not None:
            return bool(prod(self.tensor.dims) == 1)
        return self.node is not None and self.node.op_type == "Constant"  # its numbers are attributes


def tensor_type(elem_type: int) -> TypeProto:
    """The type of a tensor of any shape. Shapes play no part here."""
    return helper.make_tensor_type_proto(elem_type, None)


def is_float_type(given: TypeProto) -> bool:
    """True for the two types that a conversion to fp16 turns into each other."""
    return given.tensor_type.elem_type in (FLOAT, FLOAT16)


def without_shape(given: TypeProto) -> TypeProto:
    """A copy of the type that says nothing of a tensor's shape."""
    kept = TypeProto()
    kept.CopyFrom(given)
    if kept.HasField("tensor_type"):
        kept.tensor_type.ClearField("shape")
    return kept


def schema_of(node: NodeProto, opsets: Mapping[str, int]) -> defs.OpSchema:
    """The schema of the node's op at the model's opset. Raises StepError for an op that ONNX does not define."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in opsets or not defs.has(node.op_type, domain):
        raise StepError(
            f"node '{node.name}': '{domain or 'ai.onnx'}:{node.op_type}' is not an op of ONNX",
            "convert the exported model to fp16, before any other tool has put its own ops in",
        )
    return defs.get_schema(node.op_type, opsets[domain], domain)


def float_groups(schema: defs.OpSchema, inputs: Sequence[Value | None]) -> list[tuple[list[int], bool]]:
    """The inputs of a node that hold floats, grouped by the type variable that makes them agree.

    Each group comes with whether the schema lets it be float16.
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
    """The type of each output of the node, by ONNX's own inference for its op, without shapes.

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
    except Exception as error:  # onnx raises classes of its C++ part, none of them public
        raise _untyped(node, str(error)) from error
    untyped = [name for name in node.output if name and name not in found]
    if untyped:
        raise _untyped(node, f"its output '{untyped[0]}' gets no type")
    return [without_shape(found[name]) if name else TypeProto() for name in node.output]


def _untyped(node: NodeProto, reason: str) -> StepError:
    return StepError(
        f"node '{node.name}': {node.op_type} cannot be typed: {' '.join(reason.split())}", "export the model again"
    )

"""Check that a parsed protobuf is a valid graph, so that steps can rely on it.

Damaged bytes may still parse as a protobuf. These checks read the graph alone and no external byte:

- strings are UTF-8;
- each tensor has as many values as its dims and dtype need;
- each node has the inputs and outputs that its op allows, and the attributes that it requires;
- no value is defined twice or depends on itself.

The meaning of ops is left to `onnx.checker` and to the runtimes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    StringStringEntryProto,
    TensorProto,
    defs,
)

from artifacts.errors import StepError
from artifacts.graph.nodes import node_ranks, subgraphs
from artifacts.graph.tensors import check_values, located_tensors

if TYPE_CHECKING:
    from google.protobuf.message import Message  # type: ignore[import-untyped]

_FIX = "export the model again, or copy its file again"

LARGEST_OPSET = 2**31 - 1
# The upper bound in the schema of an op that takes any number of inputs.
_ANY_NUMBER = 2**31 - 1

# The field that contains the value of an attribute, by type, for the types that this package reads.
_FIELDS = {
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
}
_TYPES = dict(AttributeProto.AttributeType.items())
_SINGLE = ("t", "g", "sparse_tensor")
_LISTS = ("tensors", "graphs", "sparse_tensors")

Opsets = Mapping[str, int]


def check_structure(model: ModelProto) -> None:
    """Check the model. Raises StepError that names the node, tensor or value for the first error."""
    check_strings(model)
    opsets = _opsets(model.opset_import, "the model")
    for domain in {function.domain for function in model.functions}:
        opsets.setdefault(domain, 1)
    _check_graph(model.graph, opsets)
    for values, what in ((model.graph.input, "input"), (model.graph.output, "output")):
        for value in values:
            if value.type.WhichOneof("value") is None:
                raise StepError(f"{what} '{value.name}': has no type", _FIX)
    _check_functions(model.functions)
    for located in located_tensors(model):
        check_values(located)


def check_strings(model: ModelProto) -> None:
    """Check that all strings of the model are UTF-8. Raises StepError that quotes the first one that is not.

    ONNX's schema is proto2, whose parser accepts any bytes as a string. Protobuf's Python returns them as `bytes`,
    where all other code expects `str`.
    """
    waiting: list[Message] = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, NodeProto):
            names = (message.name, message.op_type, message.domain, message.doc_string, message.overload)
            _require_str((*names, *message.input, *message.output))
            if not (message.attribute or message.metadata_props or message.device_configurations):
                continue
        if isinstance(message, TensorProto):  # not by its fields: to list them would copy its values
            entries = (*message.external_data, *message.metadata_props)
            _require_str((message.name, message.doc_string, *_strings(entries)))
            continue
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting.extend(value if field.is_repeated else (value,))
            elif field.type == FieldDescriptor.TYPE_STRING:
                _require_str(value if field.is_repeated else (value,))


def _strings(entries: Iterable[StringStringEntryProto]) -> list[str]:
    return [text for entry in entries for text in (entry.key, entry.value)]


def _require_str(texts: Iterable[str | bytes]) -> None:
    for text in texts:
        if isinstance(text, bytes):
            raise StepError(f"contains the string {text[:60]!r}, which is not UTF-8", "export the model again")


def _opsets(imports: Iterable[OperatorSetIdProto], where: str) -> dict[str, int]:
    """Return the version of each domain. Raises StepError for two versions of a domain, and for an impossible one."""
    found: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if not 1 <= entry.version <= LARGEST_OPSET:
            fact = f"opset of '{domain or 'ai.onnx'}' must be from 1 to {LARGEST_OPSET}, got {entry.version}"
            raise StepError(f"{where}: {fact}", _FIX)
        if found.setdefault(domain, entry.version) != entry.version:
            raise StepError(
                f"{where} imports opsets {found[domain]} and {entry.version} of '{domain or 'ai.onnx'}'", _FIX
            )
    return found


def _check_graph(graph: GraphProto, opsets: Opsets) -> None:
    _check_definitions(graph)
    _check_nodes(graph.node, opsets)
    node_ranks(graph)  # raises StepError for a cycle
    for node in graph.node:
        for subgraph in subgraphs(node):
            _check_graph(subgraph, opsets)


def _check_definitions(graph: GraphProto) -> None:
    """Check that each value of a graph is defined once. An initializer may be listed as an input too."""
    inputs = [value.name for value in graph.input]
    tensors = [tensor.name for tensor in graph.initializer]
    tensors += [sparse.values.name for sparse in graph.sparse_initializer]
    defaults = set(inputs) & set(tensors)
    produced = [name for node in graph.node for name in node.output if name]
    for what, names in (
        ("initializers", tensors),
        ("inputs", inputs),
        ("outputs", [value.name for value in graph.output]),
        ("values", [*inputs, *(name for name in tensors if name not in defaults), *produced]),
    ):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise StepError(f"two {what} of graph '{graph.name}' are called '{twice[0]}'", _FIX)
        if "" in names:
            raise StepError(f"one of the {what} of graph '{graph.name}' has no name", _FIX)


def _check_nodes(nodes: Iterable[NodeProto], opsets: Opsets) -> None:
    for node in nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain not in opsets:
            raise _unfit(node, f"no opset of its domain '{domain or 'ai.onnx'}' is imported")
        if not node.op_type:
            raise _unfit(node, "has no op type")
        if not node.output:
            raise _unfit(node, "has no outputs")
        _check_attributes(node)
        signature = _signature(node.op_type, domain, opsets[domain])
        if signature is not None:
            _check_signature(node, signature)


class _Signature(NamedTuple):
    """Least and most inputs and outputs of an op, types of its attributes, and names of the required ones."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    attributes: Mapping[str, int]
    required: Collection[str]


@lru_cache(maxsize=4096)
def _signature(op_type: str, domain: str, version: int) -> _Signature | None:
    """Return None for an op that ONNX does not define: runtimes have ops of their own, in ONNX's domain too."""
    if not defs.has(op_type, domain):
        return None
    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:  # not yet in this version
        return None
    attributes = schema.attributes
    return _Signature(
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        {name: _TYPES[str(attribute.type).rpartition(".")[2]] for name, attribute in attributes.items()},
        [name for name, attribute in attributes.items() if attribute.required],
    )


def _check_signature(node: NodeProto, signature: _Signature) -> None:
    for what, names, (least, most) in (
        ("inputs", node.input, signature.inputs),
        ("outputs", node.output, signature.outputs),
    ):
        if not least <= len(names) <= most:
            many = f"{least} or more" if most == _ANY_NUMBER else f"{least} to {most}"
            raise _unfit(node, f"has {len(names)} {what}, needs {least if least == most else many}")
    if "" in node.input[: signature.inputs[0]]:
        raise _unfit(node, "a required input is missing")
    given = {attribute.name: attribute.type for attribute in node.attribute}
    for name, found in given.items():
        wanted = signature.attributes.get(name, found)
        if found != wanted:
            raise _unfit(node, f"attribute '{name}' is of type {_type_name(found)}, needs {_type_name(wanted)}")
    for name in signature.required:
        if name not in given:
            raise _unfit(node, f"has no attribute '{name}'")
    if node.op_type == "Constant" and len(given) != 1:
        raise _unfit(node, f"has {len(given)} values, needs one")


def _check_attributes(node: NodeProto) -> None:
    """Check that names of attributes differ, and that each has a value in the field of its type, and in no other."""
    names = set()
    for attribute in node.attribute:
        if attribute.name in names:
            raise _unfit(node, f"has the attribute '{attribute.name}' twice")
        names.add(attribute.name)
        if attribute.ref_attr_name:  # in a function: its caller gives the value
            continue
        wanted = _FIELDS.get(attribute.type, "")
        there = {field for field in _SINGLE if attribute.HasField(field)}
        there.update(field for field in _LISTS if getattr(attribute, field))
        if there - {wanted} or (wanted in _SINGLE and not there):
            kind, found = _type_name(attribute.type), ", ".join(sorted(there)) or "no value"
            raise _unfit(node, f"attribute '{attribute.name}' of type {kind} has {found}")


def _check_functions(functions: Iterable[FunctionProto]) -> None:
    """Check the nodes of functions, and that no function calls itself: runtimes would inline it without end."""
    calls: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for function in functions:
        opsets = _opsets(function.opset_import, f"function '{function.name}'")
        opsets.setdefault(function.domain, 1)
        _check_nodes(function.node, opsets)
        calls[function.domain, function.name] = {(node.domain, node.op_type) for node in _all_nodes(function.node)}
    while calls:
        leaves = [key for key, called in calls.items() if not called & calls.keys()]
        if not leaves:
            raise StepError(f"function '{min(calls)[1]}': calls itself, directly or through other functions", _FIX)
        for key in leaves:
            del calls[key]


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for subgraph in subgraphs(node):
            yield from _all_nodes(subgraph.node)


def _type_name(attribute_type: int) -> str:
    name: str = AttributeProto.AttributeType.Name(attribute_type)
    return name


def _unfit(node: NodeProto, fact: str) -> StepError:
    name = node.name or ", ".join(node.output)
    return StepError(f"node '{name}' ({node.op_type}): {fact}", _FIX)

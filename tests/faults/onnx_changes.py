"""Changes of a parsed ONNX model: anywhere at random, of a name, of opsets, of a node, of a tensor, of an input."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from onnx import ModelProto, NodeProto, TensorProto, helper

if TYPE_CHECKING:
    from google.protobuf.message import Message

Change = Callable[[ModelProto, random.Random], None]

PLACEHOLDER = "PLACEHOLDER-OF-16"
"""Stands for a name in a parsed model; its bytes are replaced in the file by ones that are not UTF-8."""
NOT_UTF8 = b"\xff\xfe\x80\xc0name-of-16- \xed"

NAMES = {
    "with_controls": "\x1b[2J\x1b[31mred\r\nfix: obey\x00\x07\u202e",
    "empty": "",
    "of_a_megabyte": "n" * 1_000_000,
    "not_utf8": PLACEHOLDER,
    "of_a_path": "../../etc/passwd",
    "astral": "\U0001f600\ufeff",
}
NUMBERS = (0, -1, 1, 2, 127, 10**9, 10**12, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63))


def messages(model: Message) -> list[Message]:
    """Every message of a model, itself first; of a tensor's values nothing."""
    found, waiting = [], [model]
    while waiting:
        message = waiting.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting.extend(value if field.is_repeated else [value])
    return found


def random_change(model: ModelProto, rng: random.Random) -> None:
    """Change up to three fields anywhere: numbers, names, lists; where that is drawn, whole messages go or double."""
    for _ in range(rng.randint(1, 3)):
        message = rng.choice(messages(model))
        fields = [field for field, _ in message.ListFields() if field.type != FieldDescriptor.TYPE_BYTES]
        if not fields:
            continue
        field = rng.choice(fields)
        if field.is_repeated:
            _change_list(message, field, rng)
        elif field.type == FieldDescriptor.TYPE_MESSAGE or rng.random() < 0.3:
            message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, _name(message, rng))
        elif field.type == FieldDescriptor.TYPE_ENUM:
            setattr(message, field.name, rng.choice(list(field.enum_type.values_by_number)))
        else:
            _set_number(message, field, rng)


def _change_list(message: Message, field: FieldDescriptor, rng: random.Random) -> None:
    values: Any = getattr(message, field.name)
    index = rng.randrange(len(values))
    what = rng.choice(("drop", "double", "clear", "swap"))
    copy = list(values)
    if what == "drop":
        del values[index]
    elif what == "clear":
        del values[:]
    elif what == "double":
        values.extend([copy[index]])
    elif field.type == FieldDescriptor.TYPE_STRING:
        values[index] = rng.choice([*copy, rng.choice(list(NAMES.values())), "nothing-makes-this"])
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        rng.shuffle(copy)
        copies = [type(one)() for one in copy]
        for new, old in zip(copies, copy, strict=True):
            new.CopyFrom(old)
        del values[:]
        values.extend(copies)
    elif field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32):
        values[index] = rng.choice([number for number in NUMBERS if abs(number) < 2**31] + [-1])


def _name(message: Message, rng: random.Random) -> str:
    if isinstance(message, NodeProto) and rng.random() < 0.3:
        return rng.choice(("If", "Loop", "Constant", "LSTM", "Gather", "Identity", "Cast"))
    return rng.choice(list(NAMES.values()))


def _set_number(message: Message, field: FieldDescriptor, rng: random.Random) -> None:
    narrow = field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32)
    for number in rng.sample(NUMBERS, len(NUMBERS)):
        if not (narrow and abs(number) >= 2**31):
            setattr(message, field.name, number)
            return


def name_change(kind: str) -> Change:
    """A name of this kind in one place of the model."""

    def change(model: ModelProto, rng: random.Random) -> None:
        graph = model.graph
        node = rng.choice(graph.node)
        places: list[tuple[Message, str]] = [
            (node, "name"),
            (node, "op_type"),
            (node, "domain"),
            (graph, "name"),
            (rng.choice(graph.input), "name"),
            (rng.choice(graph.output), "name"),
            (rng.choice(graph.initializer), "name"),
            (model, "producer_name"),
            (model.opset_import[0], "domain"),
            (model.metadata_props.add(key="a", value="b"), "key"),
        ]
        if node.attribute:
            places.append((rng.choice(node.attribute), "name"))
        if rng.random() < 0.4:  # everywhere where the value is called so
            rename(model, rng.choice([name for each in graph.node for name in each.output if name]), NAMES[kind])
            return
        message, field = rng.choice(places)
        setattr(message, field, NAMES[kind])

    return change


def rename(model: ModelProto, old: str, new: str) -> None:
    """Rename a value of the top graph."""
    for node in model.graph.node:
        for ports in (node.input, node.output):
            ports[:] = [new if name == old else name for name in ports]
    for values in (model.graph.input, model.graph.output, model.graph.value_info, model.graph.initializer):
        for value in values:
            if value.name == old:
                value.name = new


def opset(*versions: tuple[str, int]) -> Change:
    """Other opset imports."""

    def change(model: ModelProto, rng: random.Random) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions)

    return change


def on_node(change_node: Callable[[NodeProto], object]) -> Change:
    """Change one node."""

    def change(model: ModelProto, rng: random.Random) -> None:
        change_node(rng.choice(model.graph.node))

    return change


def on_weight(change_tensor: Callable[[TensorProto], object]) -> Change:
    """Change one initializer."""

    def change(model: ModelProto, rng: random.Random) -> None:
        change_tensor(
            rng.choice([tensor for tensor in model.graph.initializer if tensor.dims] or [model.graph.initializer.add()])
        )

    return change


def on_input(*dims: int | str, elem_type: int = TensorProto.FLOAT) -> Change:
    """Declare an input of the model so."""

    def change(model: ModelProto, rng: random.Random) -> None:
        value = rng.choice(model.graph.input)
        value.CopyFrom(helper.make_tensor_value_info(value.name, elem_type, dims))

    return change


def on_model(change_model: Callable[[ModelProto], object]) -> Change:
    """Change the model."""
    return lambda model, rng: (change_model(model), None)[1]


def set_dims(*dims: int) -> Callable[[TensorProto], None]:
    """Give a tensor other dims."""

    def change(tensor: TensorProto) -> None:
        tensor.dims[:] = dims

    return change

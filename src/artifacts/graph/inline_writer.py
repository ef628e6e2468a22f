"""Write a model with external data as one file. Its tensors are streamed from file to file, never held in memory.

Protobuf's serialiser needs the whole message in memory, and as much again for the serialised bytes. This module writes
the message around the tensors, in Protobuf's wire format (protobuf.dev, "Encoding"): a field that is bytes or a message
is a tag, a length and the content. Fields come in the order of their numbers, as in the serialiser. So the file is byte
for byte the one that the serialiser would write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from artifacts.errors import StepError
from artifacts.graph.tensor_content import Content, stored_content
from artifacts.graph.tensor_writer import PROTOBUF_LIMIT_BYTES, embed_external_data
from artifacts.graph.tensors import is_external, located_tensors

_Part = bytes | Content
_LENGTH_DELIMITED = 2
_GRAPH = ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER


def write_inline(model: ModelProto, folder: Path, path: Path) -> None:
    """Write the model, whose external data are in `folder`, to `path`.

    External initializers are streamed. Other external tensors (Constants, subgraphs) are read into the model first.
    Raises StepError if the file would reach 2^31 bytes, FileExistsError if it exists.
    """
    elsewhere = islice(located_tensors(model), len(model.graph.initializer), None)
    embed_external_data(
        [(located, stored_content(located.tensor, folder)) for located in elsewhere if is_external(located.tensor)]
    )
    parts = _model(model, folder)
    total = sum(map(_size, parts))
    if total >= PROTOBUF_LIMIT_BYTES:
        raise StepError(
            f"{path.name}: {total} bytes do not fit into one protobuf, which ends at {PROTOBUF_LIMIT_BYTES}",
            "keep the tensors in external data",
        )
    with path.open("xb") as file:
        for part in parts:
            for chunk in (part,) if isinstance(part, bytes) else part.chunks():
                file.write(chunk)


def _model(model: ModelProto, folder: Path) -> list[_Part]:
    initializers = [
        part for tensor in model.graph.initializer for part in _field(_INITIALIZER, _tensor(tensor, folder))
    ]
    return _around(model, _GRAPH, _field(_GRAPH, _around(model.graph, _INITIALIZER, initializers)))


def _tensor(tensor: TensorProto, folder: Path) -> list[_Part]:
    if not is_external(tensor):
        return [tensor.SerializeToString(deterministic=True)]
    inline = TensorProto()
    inline.CopyFrom(tensor)
    inline.ClearField("data_location")
    inline.ClearField("external_data")
    return _around(inline, _RAW_DATA, _field(_RAW_DATA, [stored_content(tensor, folder)]))


def _around(message: ModelProto | GraphProto | TensorProto, number: int, field: Sequence[_Part]) -> list[_Part]:
    """Return the parts of the message, with `field` as the field of this number."""
    return [_fields(message, lambda other: other < number), *field, _fields(message, lambda other: other > number)]


def _fields(message: ModelProto | GraphProto | TensorProto, wanted: Callable[[int], bool]) -> bytes:
    """Return the bytes of those fields of the message whose number is wanted."""
    part = type(message)()
    part.CopyFrom(message)
    for field, _ in message.ListFields():
        if not wanted(field.number):
            part.ClearField(field.name)
    data: bytes = part.SerializeToString(deterministic=True)
    return data


def _field(number: int, content: Sequence[_Part]) -> list[_Part]:
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(sum(map(_size, content))), *content]


def _size(part: _Part) -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes


def _varint(number: int) -> bytes:
    """Return the number as bytes of seven bits each, the lowest first. The eighth bit says that more follow."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)

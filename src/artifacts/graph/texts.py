"""Check that the texts of a model are UTF-8.

ONNX's schema is proto2, whose parser takes any bytes for a text; protobuf's Python gives them back as `bytes`, where
everything else expects `str`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import ModelProto, NodeProto, StringStringEntryProto, TensorProto

from artifacts.errors import StepError

if TYPE_CHECKING:
    from google.protobuf.message import Message  # type: ignore[import-untyped]


def check_texts(model: ModelProto) -> None:
    """Check every name, location and note of the model. Raises StepError, quoting it, for one that is not UTF-8."""
    waiting: list[Message] = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, NodeProto):
            _check_names(message)
            if not (message.attribute or message.metadata_props or message.device_configurations):
                continue
        if isinstance(message, TensorProto):
            texts = [
                message.name,
                message.doc_string,
                *_strings(message.external_data),
                *_strings(message.metadata_props),
            ]
            _require_text(texts)  # to list all of its fields would copy its values
            continue
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting.extend(value if field.is_repeated else (value,))
            elif field.type == FieldDescriptor.TYPE_STRING:
                _require_text(value if field.is_repeated else (value,))


def _strings(entries: Iterable[StringStringEntryProto]) -> list[str]:
    return [text for entry in entries for text in (entry.key, entry.value)]


def _check_names(node: NodeProto) -> None:
    _require_text((node.name, node.op_type, node.domain, node.doc_string, node.overload, *node.input, *node.output))


def _require_text(texts: Iterable[str | bytes]) -> None:
    for text in texts:
        if isinstance(text, bytes):
            raise StepError(f"holds the text {text[:60]!r}, which is not UTF-8", "export the model again")

"""Find the files of a model's external data, without a list of its folder: a sandbox may keep that from a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import ModelProto, TensorProto


def data_files(model: Path) -> list[Path]:
    """Return the files with external data of the model in a `.onnx` file: those that exist, in its folder or below.

    A file that is not ONNX has none. Whoever loads it reports that.
    """
    proto = ModelProto()
    try:
        proto.ParseFromString(model.read_bytes())
    except DecodeError:
        return []
    locations = {entry.value for tensor in _tensors(proto) for entry in tensor.external_data if entry.key == "location"}
    inside = [PurePosixPath(location) for location in sorted(locations) if "\0" not in location]
    paths = [model.parent / path for path in inside if not path.is_absolute() and ".." not in path.parts]
    return [path for path in paths if path.is_file()]


def _tensors(message: Message) -> Iterator[TensorProto]:
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in [value] if isinstance(value, Message) else value:
                yield from _tensors(one)

"""External data: read, check and write the references from a model to the files beside it.

A reference is a location (a path relative to the model's folder), an offset and a length. onnx 1.23 refuses data files
that have several hard links. ONNX Runtime (from 1.24.1) refuses symbolic links out of the folder. A path that leaves
the folder could name any file of the machine. All of these are refused here, before a byte is read.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import ModelProto, TensorProto

from artifacts.errors import StepError
from artifacts.graph.tensors import VALUE_FIELDS, is_external, located_tensors, tensor_nbytes

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """File and range of an external tensor's bytes. `length_bytes` is always known: dims and dtype decide it."""

    location: str
    offset_bytes: int
    length_bytes: int


def reference_of(tensor: TensorProto) -> Reference:
    """Return the reference of an external tensor. Raises StepError if it is malformed or contradicts dims and dtype."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data):
        raise StepError("external data has a key twice", "export the model again")
    needed = tensor_nbytes(tensor)
    location, offset, length = (
        entries.get("location", ""),
        entries.get("offset", "0"),
        entries.get("length", str(needed)),
    )
    if not (location and _NUMBER.fullmatch(offset) and _NUMBER.fullmatch(length)):
        raise StepError(
            f"external data location '{location}', offset '{offset}', length '{length}' is not a range of a file",
            "export the model again",
        )
    if int(length) != needed:
        raise StepError(
            f"external data '{location}' has length {length}, dims {list(tensor.dims)} need {needed} bytes",
            "export the model again",
        )
    return Reference(location, int(offset), needed)


def set_external_data(tensor: TensorProto, reference: Reference) -> None:
    """Make the tensor external: remove its values from the protobuf, and write the reference."""
    for field in VALUE_FIELDS:
        tensor.ClearField(field)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", reference.location),
        ("offset", str(reference.offset_bytes)),
        ("length", str(reference.length_bytes)),
    ):
        tensor.external_data.add(key=key, value=value)


def check_references(model: ModelProto, path: Path) -> None:
    """Check that every external tensor of the model at `path` can be read. Raises StepError naming file and tensor."""
    sizes: dict[str, int] = {}
    for located in located_tensors(model):
        if not is_external(located.tensor):
            continue
        try:
            reference = reference_of(located.tensor)
            if reference.location not in sizes:
                sizes[reference.location] = _size_of_data_file(path.parent, reference.location)
        except StepError as error:
            raise StepError(f"{path.name}: {located.label}: {error.fact}", error.fix) from None
        end, size = reference.offset_bytes + reference.length_bytes, sizes[reference.location]
        if end > size:
            raise StepError(
                f"{path.name}: external data '{reference.location}' ends at byte {size}, {located.label} needs {end}",
                "copy the file again: it is truncated",
            )


def _size_of_data_file(folder: Path, location: str) -> int:
    parts = PurePosixPath(location).parts
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor or ".." in parts or "\\" in location:
        raise StepError(
            f"external data '{location}' points outside the model's folder",
            "export the model again with its data beside it",
        )
    try:
        is_linked = any(folder.joinpath(*parts[:depth]).is_symlink() for depth in range(1, len(parts) + 1))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise StepError(
            f"external data '{location[:40]}...' has a name too long for a file",
            "export the model again, with a shorter file name",
        ) from None
    if is_linked:
        raise StepError(f"external data '{location}' is a symbolic link", "replace it by a copy of the file")
    file = folder / location
    if not file.is_file():
        raise StepError(f"external data '{location}' is missing", "copy it beside the .onnx file, under this name")
    status = file.stat()
    if status.st_nlink > 1:
        raise StepError(
            f"external data '{location}' has {status.st_nlink} hard links, and onnx refuses linked data",
            "replace it by a copy of the file",
        )
    return status.st_size

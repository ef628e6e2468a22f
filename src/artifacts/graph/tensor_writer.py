"""Moves the tensors of a model into data files, or back into the protobuf, and writes the protobuf.

The pairs of a tensor's place and its content say what there is to write: `stored_tensors` lists a model's as they are;
what changes values on their way (fp16) replaces contents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import StepError
from artifacts.graph.content import Content, stored_content
from artifacts.graph.data_files import Placed, aligned, write_files
from artifacts.graph.external_data import Reference, refer
from artifacts.graph.tensors import TensorPlace, is_external, iter_places

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

EXTERNAL_FROM_BYTES = 1024
"""Smaller tensors stay in the protobuf: shapes and axes, which shape inference must see."""

PROTOBUF_LIMIT_BYTES = 2**31
"""A protobuf of this size or more cannot be parsed."""

Stored = tuple[TensorPlace, Content]


@dataclass(frozen=True)
class DataFileSummary:
    """A data file that was written: its name, how many tensors and how many bytes it holds."""

    name: str
    tensors: int
    nbytes: int


def stored_tensors(model: ModelProto, folder: Path) -> list[Stored]:
    """Each tensor that can be moved or is external, with its bytes where they are now: `folder`, or the protobuf."""
    return [
        (place, stored_content(place.tensor, folder))
        for place in iter_places(model)
        if place.movable or is_external(place.tensor)
    ]


def write_data_files(
    stored: Sequence[Stored], folder: Path, file_name: Callable[[int], str], max_file_bytes: int | None = None
) -> list[DataFileSummary]:
    """Write contents of 1024 bytes and more to data files in `folder`, in order, and make their tensors refer to them.

    A file takes tensors until the next would pass `max_file_bytes`; then `file_name(1)`, `file_name(2)`, ... follow
    `file_name(0)`. A tensor is never split: one that is larger than that has a file of its own. External tensors that
    stay behind (smaller, or where runtimes read no external data) go into the protobuf.
    No tensor to write means no file.
    """
    moving: list[Stored] = []
    staying: list[Stored] = []
    for place, content in stored:
        large = place.movable and content.nbytes >= EXTERNAL_FROM_BYTES
        (moving if large else staying).append((place, content))
    pull_inline(staying)
    files: dict[Path, list[Placed]] = {}
    for index, group in enumerate(_groups(moving, max_file_bytes)):
        placed = files[folder / file_name(index)] = []
        end = 0
        for _, content in group:
            placed.append((aligned(end), content))
            end = placed[-1][0] + content.nbytes
    log.info("writing %d tensors to %d files", len(moving), len(files))
    write_files(files)
    written = [(path.name, *placed) for path, contents in files.items() for placed in contents]
    for (place, _), (name, offset, content) in zip(moving, written, strict=True):
        refer(place.tensor, Reference(name, offset, content.nbytes))
    return [DataFileSummary(path.name, len(placed), path.stat().st_size) for path, placed in files.items()]


def _groups(stored: Sequence[Stored], max_file_bytes: int | None) -> Iterator[list[Stored]]:
    group: list[Stored] = []
    size = 0
    for place, content in stored:
        end = aligned(size) + content.nbytes
        if group and max_file_bytes is not None and end > max_file_bytes:
            yield group
            group, end = [], content.nbytes
        group.append((place, content))
        size = end
    if group:
        yield group


def write_model(model: ModelProto, stored: Sequence[Stored], path: Path, *, external: bool) -> None:
    """Write `path`, with its tensors in `<path.name>.data` if `external`, else all in the protobuf.

    Raises StepError if the protobuf would reach 2^31 bytes.
    """
    total = sum(content.nbytes for _, content in stored)
    if not external and total >= PROTOBUF_LIMIT_BYTES:
        raise StepError(
            f"{path.name}: tensors of {total} bytes do not fit into one protobuf, which ends at {PROTOBUF_LIMIT_BYTES}",
            "keep them in external data",
        )
    if external:
        write_data_files(stored, path.parent, lambda _: f"{path.name}.data")
    else:
        pull_inline(stored)
    write_protobuf(model, path)


def pull_inline(stored: Sequence[Stored]) -> None:
    """Read the external tensors among these into the protobuf."""
    for place, content in stored:
        if is_external(place.tensor):
            place.tensor.raw_data = b"".join(bytes(piece) for piece in content.pieces())
            place.tensor.ClearField("data_location")
            del place.tensor.external_data[:]


def write_protobuf(model: ModelProto, path: Path) -> None:
    """Write the protobuf alone. Raises FileExistsError if `path` is there."""
    with path.open("xb") as file:
        file.write(model.SerializeToString(deterministic=True))

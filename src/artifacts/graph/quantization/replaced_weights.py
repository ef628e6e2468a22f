"""Gives large weights of a model other bytes: on their way from file to file, or in the protobuf at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from artifacts.graph.content import Content, InTensor

if TYPE_CHECKING:
    from onnx import TensorProto

    from artifacts.graph.tensor_writer import Stored


def replace_contents(stored: Sequence[Stored], new: Sequence[tuple[TensorProto, Content]]) -> list[Stored]:
    """`stored` with the contents of `new` in place of those that its tensors had.

    A tensor whose bytes are in the protobuf has its new ones there right away. So this is to be called before a tensor
    is given another dtype.
    """
    by_tensor = {id(tensor): content for tensor, content in new}  # `new` holds the tensors: no id is used twice
    return [(place, _replace(place.tensor, old, by_tensor.get(id(place.tensor)))) for place, old in stored]


def _replace(tensor: TensorProto, old: Content, new: Content | None) -> Content:
    if new is None:
        return old
    if not isinstance(old, InTensor):
        return new
    tensor.raw_data = b"".join(bytes(piece) for piece in new.pieces())
    tensor.ClearField("float_data")
    return old

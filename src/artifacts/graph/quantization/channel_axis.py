"""Which axis of a weight is that of its channels: the one whose entries deserve a scale each.

It is the axis of the outputs: whatever reaches one output number is then multiplied by one scale. The op that reads
the weight says which axis that is:

| op | input | axis |
|---|---|---|
| MatMul | the right matrix `[..., K, N]` | the last |
| MatMul | the left matrix `[..., M, K]` | the last but one |
| Gemm | A `[M, K]`, B `[K, N]`, or transposed | that of M, of N |
| Conv | W `[M, C/groups, ...]` | 0 |
| ConvTranspose | W `[C, M/groups, ...]` | 1 |
| LSTM, GRU, RNN | W, R `[directions, gates * hidden, ...]` | 1: a gate of a cell, for both directions together |
| Gather | the table | the one that is looked up: an entry of an embedding |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto

    from artifacts.graph.quantization.large_weights import Reader


def channel_axis(readers: Iterable[Reader], rank: int) -> int | None:
    """The axis of the channels of a weight with `rank` axes; None if its readers have none, or not the same."""
    axes = {_axis(reader.node, reader.index, rank) for reader in readers}
    return axes.pop() if len(axes) == 1 else None


def _axis(node: NodeProto, index: int, rank: int) -> int | None:
    axis: int | None = None
    match node.op_type, index:
        case "MatMul", 0:
            axis = rank - 2
        case "MatMul", 1:
            axis = rank - 1
        case "Gemm", 0:
            axis = _attribute(node, "transA")
        case "Gemm", 1:
            axis = 1 - _attribute(node, "transB")
        case "Conv", 1:
            axis = 0
        case (("ConvTranspose" | "LSTM" | "GRU" | "RNN"), (1 | 2)):
            axis = 1
        case "Gather", 0:
            axis = _attribute(node, "axis") % rank
    return axis if axis is not None and 0 <= axis < rank else None


def _attribute(node: NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)

"""The length cone: numbers computed from integers, which must stay exact.

NeMo's encoder takes the length of its features through float arithmetic (Cast, Add, Div, Cast back) to the length of
its output and to the masks of padding. An fp16 integer is exact up to 2048 only, so this arithmetic stays fp32: a
float made of integers and constants alone is a count, until it meets features. Reading a table of weights by an
integer index is no arithmetic: embeddings are weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto

from artifacts.errors import StepError
from artifacts.graph.tensor_reader import TensorReader
from artifacts.graph.value_types import FLOAT16, Kind, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT_BITS = 7
"""A constant whose significand needs at most this many of fp16's 11 bits was not rounded: 1, 2, 0.5, 160, but not 0.1.

One in sixteen numbers that were rounded would look so by chance.
"""

_SMALLEST_NORMAL = 2.0**-14


def output_kind(node: NodeProto, inputs: Sequence[Value], *, is_float: bool) -> Kind:
    """What an output of the node is made of, given what its inputs are made of."""
    floats = [value for value in inputs if value.is_float]
    kinds = {value.kind for value in floats}
    if all(value.kind is Kind.CONSTANT for value in inputs) and not node.op_type.startswith("Random"):
        return Kind.CONSTANT
    if not is_float:
        return Kind.COUNT
    if Kind.SIGNAL in kinds or node.op_type.startswith("Random"):
        return Kind.SIGNAL
    if kinds == {Kind.CONSTANT} and not all(value.is_scalar for value in floats):
        return Kind.CONSTANT  # a table, read by an index or a range
    return Kind.COUNT


def is_sink(node: NodeProto, inputs: Sequence[Value], *, gives_float: bool) -> bool:
    """True for a node that turns counts back into integers or truth values: there the cone ends."""
    kinds = {value.kind for value in inputs if value.is_float}
    reads_shape = node.op_type in ("Shape", "Size")
    return Kind.COUNT in kinds and Kind.SIGNAL not in kinds and not gives_float and not reads_shape


def check_exact(sinks: Iterable[Value], reader: TensorReader) -> None:
    """Check that no fp16 constant on the way to the sinks can have been rounded: widening would not bring it back.

    Raises StepError that names the constant.
    """
    waiting, seen = list(sinks), set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not value.is_float:
            continue
        seen.add(id(value))
        waiting.extend(value.inputs)
        if value.tensor is None or value.elem_type != FLOAT16:
            continue
        numbers = reader.array(value.tensor)
        rounded = numbers[~_is_exact(numbers)]
        if rounded.size:
            nodes = [value.node] if value.node else [u.holder for u in value.uses if isinstance(u.holder, NodeProto)]
            blocked = ", ".join(f"'{node.name}'" for node in nodes)
            raise StepError(
                f"'{value.name}': {rounded.flat[0]} decides an integer and may have been rounded to fp16",
                f"add {blocked} to node_block_list of convert_fp16",
            )


def _is_exact(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    wide = np.abs(numbers.astype(np.float64))
    scaled = np.frexp(wide)[0] * 2.0**EXACT_BITS
    is_short = (wide >= _SMALLEST_NORMAL) & (scaled == np.floor(scaled))
    return np.asarray(is_short | (wide == 0), dtype=np.bool_)

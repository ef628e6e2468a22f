"""Weights in blocks of 4 or 8-bit numbers, and the MatMulNBits nodes that multiply by them.

The layout and the rounding are those of ONNX Runtime: its kernel does the work. Its Python class around the same kernel
(`MatMulNBitsQuantizer`) holds the whole model in memory. A block is `block_size` consecutive input channels of one
output channel. A symmetric block maps its number of largest magnitude to the lowest integer, so that its scale is
negative where that number is positive; the middle integer is zero. An asymmetric block maps [min, max], extended to
contain zero, to all integers.

Names are those of ONNX Runtime's quantiser: `<node>_Q8`, and the weight's name with `_Q8`, `_scales` and
`_zero_points`. A weight that several MatMuls consume is stored once. It stays in float beside that where another node
consumes it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
from onnx import TensorProto, helper
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

from artifacts.errors import StepError
from artifacts.graph.external_data import Reference, set_external_data
from artifacts.graph.quantization.float_model import remove_unused_initializers
from artifacts.graph.quantization.weight_matmuls import WeightMatMul, weight_matmuls
from artifacts.graph.tensor_content import Content, read_floats, stored_content
from artifacts.graph.tensor_writer import Stored, stored_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

log = logging.getLogger(__name__)

DOMAIN = "com.microsoft"

Part = Literal["packed", "scales", "zero_points"]

# Below it the kernel's 1 / scale may be infinite.
_SMALLEST_SCALE = np.float32(2**-126)


@dataclass(frozen=True)
class BlockFormat:
    """Bits of a number, channels of a block (a power of two from 16 to 256), and whether zero is the middle."""

    bits: Literal[4, 8]
    block_size: int
    symmetric: bool

    def dims(self, part: Part, sizes: tuple[int, int]) -> tuple[int, ...]:
        """Return the dims of a part for a weight of K input and N output channels.

        packed: uint8 [N, blocks, block_size * bits / 8], padded with zero bytes where K ends within a block;
        scales: float32 [N, blocks]; zero_points: uint8 [N, blocks * bits / 8, rounded up].
        """
        rows, columns = sizes
        blocks = -(-rows // self.block_size)
        if part == "packed":
            return columns, blocks, self.block_size * self.bits // 8
        return (columns, blocks) if part == "scales" else (columns, -(-blocks * self.bits // 8))


@dataclass(frozen=True)
class NBitsChanges:
    """Number of nodes and weights that were rewritten, and all of the model's tensors with their new contents."""

    nodes: int
    weights: int
    stored: list[Stored]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(content.nbytes for _, content in self.stored)


def rewrite_to_nbits(
    model: ModelProto, folder: Path, form: BlockFormat, accuracy_level: int, excluded: Collection[str]
) -> NBitsChanges:
    """Replace the MatMuls of `weight_matmuls`, except nodes of the names `excluded`. External data are in `folder`.

    A weight is read only when its new content is. The new tensors refer to a file that does not exist yet: write the
    result with `write_model`.
    """
    matmuls = weight_matmuls(model, excluded)
    weights = {matmul.weight.name: matmul for matmul in matmuls}
    quantizer = BlockQuantizer(form, len(weights))
    contents: dict[str, Content] = {}
    for matmul in weights.values():
        source = stored_content(matmul.weight, folder)
        for part, name in _parts(matmul.weight.name, form):
            content = NBitsContent(matmul.weight.name, part, source, matmul.sizes, quantizer)
            data_type = TensorProto.FLOAT if part == "scales" else TensorProto.UINT8
            tensor = model.graph.initializer.add(name=name, data_type=data_type, dims=form.dims(part, matmul.sizes))
            set_external_data(tensor, Reference("to be written", 0, content.nbytes))
            contents[name] = content
    for matmul in matmuls:
        _rewrite(matmul, form, accuracy_level)
    remove_unused_initializers(model.graph, weights.keys())
    if matmuls and DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    stored = [
        (located, contents.get(located.tensor.name, content)) for located, content in stored_tensors(model, folder)
    ]
    return NBitsChanges(len(matmuls), len(weights), stored)


def _parts(weight: str, form: BlockFormat) -> Iterator[tuple[Part, str]]:
    yield "packed", f"{weight}_Q{form.bits}"
    yield "scales", f"{weight}_scales"
    if not form.symmetric:
        yield "zero_points", f"{weight}_zero_points"


def _rewrite(matmul: WeightMatMul, form: BlockFormat, accuracy_level: int) -> None:
    node, (rows, columns) = matmul.node, matmul.sizes
    node.input[1:] = [name for _, name in _parts(matmul.weight.name, form)]
    node.op_type, node.domain = "MatMulNBits", DOMAIN
    node.name = f"{node.name}_Q{form.bits}" if node.name else ""
    attributes = {"K": rows, "N": columns, "bits": form.bits, "block_size": form.block_size}
    if accuracy_level:  # without the attribute it is 0
        attributes["accuracy_level"] = accuracy_level
    node.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(attributes.items()))


@dataclass(frozen=True)
class Blocks:
    """A quantised weight; see `BlockFormat.dims`. A symmetric one is used without `zero_points`."""

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]


def quantize_blocks(weight: NDArray[np.float32], form: BlockFormat) -> Blocks:
    """Quantise a matrix [K, N]. Raises StepError for NaN or infinity, or if a block is too small or large to scale."""
    if not np.isfinite(weight).all():
        raise StepError("has NaN or infinity", "train or export the checkpoint again")
    rows, columns = weight.shape
    kernel = quantize_matmul_8bits if form.bits == 8 else quantize_matmul_4bits
    # The kernel does not write the padding: zeros make the bytes the same every time.
    blocks = Blocks(
        np.zeros(form.dims("packed", (rows, columns)), np.uint8),
        np.zeros(form.dims("scales", (rows, columns)), np.float32),
        np.zeros(form.dims("zero_points", (rows, columns)), np.uint8),
    )
    out = blocks.packed, np.ascontiguousarray(weight), blocks.scales, blocks.zero_points
    kernel(*out, form.block_size, columns, rows, form.symmetric)
    _check_scales(blocks.scales, weight, form)
    return blocks


def _check_scales(scales: NDArray[np.float32], weight: NDArray[np.float32], form: BlockFormat) -> None:
    wrong = ~(np.isfinite(scales) & (np.abs(scales) >= _SMALLEST_SCALE))
    if wrong.any():  # a block of zeros may have the scale 0
        wrong &= np.logical_or.reduceat(weight != 0, np.arange(0, len(weight), form.block_size)).T
    if wrong.any():
        raise StepError(f"quantised with the scale {scales[wrong][0]}", "exclude the nodes that consume it")


@dataclass
class BlockQuantizer:
    """Quantise `weights` weights when their parts are read. The last one is kept, because it is written part by part.

    One weight at a time, in however many threads parts are read: the memory is that of a weight and its blocks.
    """

    form: BlockFormat
    weights: int
    _seen: set[str] = field(default_factory=set, init=False)
    _name: str | None = field(default=None, init=False)
    _blocks: Blocks | None = field(default=None, init=False)
    _busy: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def blocks(self, name: str, source: Content, sizes: tuple[int, int]) -> Blocks:
        """Quantise the weight `name` [K, N], whose float32 bytes are `source`. Raises StepError that names it."""
        with self._busy:
            if self._blocks is None or self._name != name:
                self._blocks = None  # free its memory first
                weight = read_floats(source).reshape(sizes)
                try:
                    self._blocks, self._name = quantize_blocks(weight, self.form), name
                except StepError as error:
                    raise StepError(f"weight '{name}': {error.fact}", error.fix) from None
                self._seen.add(name)
                log.info("quantising weights", extra={"done": len(self._seen), "total": self.weights})
            return self._blocks


@dataclass(frozen=True)
class NBitsContent:
    """The bytes of one part of a weight [K, N] that is quantised when they are read from `source`."""

    name: str
    part: Part
    source: Content
    sizes: tuple[int, int]
    quantizer: BlockQuantizer

    @property
    def nbytes(self) -> int:
        itemsize = 4 if self.part == "scales" else 1
        return itemsize * int(np.prod(self.quantizer.form.dims(self.part, self.sizes), dtype=np.int64))

    def chunks(self) -> Iterator[memoryview]:
        blocks = self.quantizer.blocks(self.name, self.source, self.sizes)
        yield getattr(blocks, self.part).reshape(-1).view(np.uint8).data

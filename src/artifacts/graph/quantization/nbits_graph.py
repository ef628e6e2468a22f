"""MatMuls with a constant weight become MatMulNBits nodes, which read that weight in blocks of 4 or 8 bits.

Names are those that ONNX Runtime's quantiser gives: `<node>_Q8`, and `_Q8`, `_scales` and `_zero_points` behind the
weight's. A weight that several MatMuls read is stored once; it stays in float beside that where another node reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from artifacts.graph.constants import drop_unread
from artifacts.graph.content import Content, stored_content
from artifacts.graph.external_data import Reference, refer
from artifacts.graph.quantization.nbits_values import BlockFormat, BlockQuantizer, NBitsContent, Part
from artifacts.graph.quantization.weight_matmuls import WeightMatMul, weight_matmuls
from artifacts.graph.tensor_writer import Stored, stored_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class NBitsChanges:
    """What was rewritten: how many nodes, how many weights, and all of the model's tensors with their bytes to be."""

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
    """Replace the MatMuls of `weight_matmuls`, but for nodes of the names `excluded`; external data are in `folder`.

    No weight is read before its new content is. The new tensors refer to no file that there is: what is returned is to
    be written with `write_model`.
    """
    matmuls = [found for found in weight_matmuls(model) if found.node.name not in excluded]
    weights = {found.weight.name: found for found in matmuls}
    quantizer = BlockQuantizer(form, len(weights))
    contents: dict[str, Content] = {}
    for found in weights.values():
        source = stored_content(found.weight, folder)
        for part, name in _parts(found.weight.name, form):
            content = NBitsContent(found.weight.name, part, source, found.sizes, quantizer)
            data_type = TensorProto.FLOAT if part == "scales" else TensorProto.UINT8
            tensor = model.graph.initializer.add(name=name, data_type=data_type, dims=form.dims(part, found.sizes))
            refer(tensor, Reference("to be written", 0, content.nbytes))
            contents[name] = content
    for found in matmuls:
        _rewrite(found, form, accuracy_level)
    drop_unread(model.graph, weights.keys())
    if matmuls and DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    stored = [(place, contents.get(place.tensor.name, content)) for place, content in stored_tensors(model, folder)]
    return NBitsChanges(len(matmuls), len(weights), stored)


def _parts(weight: str, form: BlockFormat) -> Iterator[tuple[Part, str]]:
    yield "packed", f"{weight}_Q{form.bits}"
    yield "scales", f"{weight}_scales"
    if not form.symmetric:
        yield "zero_points", f"{weight}_zero_points"


def _rewrite(found: WeightMatMul, form: BlockFormat, accuracy_level: int) -> None:
    node, (rows, columns) = found.node, found.sizes
    node.input[1:] = [name for _, name in _parts(found.weight.name, form)]
    node.op_type, node.domain = "MatMulNBits", DOMAIN
    node.name = f"{node.name}_Q{form.bits}" if node.name else ""
    attributes = {"K": rows, "N": columns, "bits": form.bits, "block_size": form.block_size}
    if accuracy_level:  # 0 is what it means to have none
        attributes["accuracy_level"] = accuracy_level
    node.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(attributes.items()))

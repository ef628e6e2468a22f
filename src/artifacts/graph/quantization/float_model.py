"""The float32 model that a quantiser changes: open and check it, turn Constants into initializers, drop unused ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import TensorProto

from artifacts.errors import StepError
from artifacts.graph.model_file import errors_of, find_model, load_graph
from artifacts.graph.nodes import consumed_names
from artifacts.graph.tensors import iter_tensors

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

_QUANTIZED_OPS = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
        "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul",
        "QuantizeLinear",
    }
)  # fmt: skip


def open_float_model(folder: Path, nodes_to_exclude: Iterable[str] = ()) -> tuple[Path, ModelProto]:
    """Return the path of the folder's model and the model without its external data.

    Raises StepError for a model that cannot be read, is quantised already or has fp16 tensors, and for an excluded name
    that no node has.
    """
    path = find_model(folder)
    model = load_graph(path)
    with errors_of(path):
        _check_float(model)
        _check_excluded(nodes_to_exclude, model)
    return path, model


def _check_float(model: ModelProto) -> None:
    """Raise StepError if the model is quantised already, or has fp16 tensors."""
    for node in model.graph.node:
        if node.op_type in _QUANTIZED_OPS:
            raise StepError(f"quantised already: node '{node.name}' is a {node.op_type}", "give the fp32 model")
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in iter_tensors(model)):
        raise StepError("has fp16 tensors", "give the fp32 model")


def _check_excluded(names: Iterable[str], model: ModelProto) -> None:
    known = {node.name for node in model.graph.node if node.name}  # '' would name every node without a name
    for excluded in names:
        if excluded not in known:
            near = get_close_matches(excluded, sorted(known), n=1)
            fix = f"did you mean '{near[0]}'?" if near else "name nodes of the model in nodes_to_exclude"
            raise StepError(f"no node is called '{excluded}'", fix)


def constants_to_initializers(graph: GraphProto, wanted: Callable[[TensorProto], bool]) -> None:
    """Turn each Constant whose `value` is wanted into an initializer of its name. External data stay where they are.

    Quantisers look for weights among the initializers.
    """
    for node in [node for node in graph.node if node.op_type == "Constant" and node.domain in ("", "ai.onnx")]:
        if node.attribute[0].name == "value" and wanted(node.attribute[0].t):
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.node.remove(node)


def remove_unused_initializers(graph: GraphProto, names: Collection[str]) -> None:
    """Remove those of the named initializers that no node or subgraph consumes, and that are not an output."""
    used = {name for node in graph.node for name in consumed_names(node)} | {value.name for value in graph.output}
    unused = set(names) - used
    for values in (graph.initializer, graph.input, graph.value_info):
        for index in reversed([index for index, value in enumerate(values) if value.name in unused]):
            del values[index]

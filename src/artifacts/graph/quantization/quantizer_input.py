"""What every quantiser asks of the model it is given: float32, not quantised yet, and the nodes that are named."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from onnx import ModelProto, TensorProto

from artifacts.errors import StepError
from artifacts.graph.quantization.int8 import quantized_node
from artifacts.graph.tensors import iter_tensors


def check_float_model(model: ModelProto, name: str) -> None:
    """Raises StepError, with the file's name, for a model that is quantised already or holds fp16 tensors."""
    node = quantized_node(model)
    if node is not None:
        raise StepError(f"{name}: quantised already: node '{node.name}' is a {node.op_type}", "give the fp32 model")
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in iter_tensors(model)):
        raise StepError(f"{name}: holds fp16 tensors", "give the fp32 model")


def check_excluded(names: Iterable[str], model: ModelProto, name: str) -> None:
    """Raises StepError, with the file's name and the nearest node, for a name that no node of the model has."""
    known = {node.name for node in model.graph.node}
    for excluded in names:
        if excluded not in known:
            near = get_close_matches(excluded, sorted(known), n=1)
            fix = f"did you mean '{near[0]}'?" if near else f"name nodes of {name} in nodes_to_exclude"
            raise StepError(f"{name}: no node is called '{excluded}'", fix)

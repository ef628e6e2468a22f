"""Repair the Casts of a model that was converted to fp16, so that it loads and its lengths stay exact.

Other converters turn weights and values into fp16 and leave the Casts inside the graph as they are. `Cast(to=FLOAT)`
then feeds fp32 into nodes whose weights are fp16, and ONNX Runtime refuses the file. To flip all Casts would make it
load and wrong: the encoder computes lengths in floats, and integers in fp16 are exact up to 2048 only (20.5 s of
features). So the step propagates types through the graph and the subgraphs of If, Loop and Scan, and changes only what
disagrees:

- Casts whose consumers need fp16 become fp16; Casts that feed fp32 nodes or the model's outputs stay;
- arithmetic on lengths and positions becomes fp32 throughout, whatever the converter did to it;
- fp16 inputs of the model become fp32 again (with a Cast behind them), outputs keep their declared type.

A model whose types all agree is passed on unchanged. `convert_fp16` writes such models: for them the step is a check,
that types agree and that the model runs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")
HEADLINE = ("casts_changed", "casts_inserted", "casts_removed")


class Params(StepParams):
    """No parameters: types decide."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the repaired model to `out` under its name, with external data if it has them now, and run it once.

    Weights are copied, not loaded. Metrics count Casts: changed to the other type, inserted, removed (without consumers
    any more), kept as fp32. They also count constants widened to fp32, model inputs restored to fp32, and nodes that
    compute on lengths or positions. Raises StepError for a model that cannot be read or typed, that has no fp16, whose
    lengths were rounded by the conversion, or as `check_and_run` does for the result. (On the CPU, ONNX Runtime
    computes much of fp16 in fp32: an overflow in fp16 shows on other devices only.)
    """
    from onnx import TensorProto

    from artifacts.graph.cast_repair import repair_casts
    from artifacts.graph.model_file import find_model, load_graph, save_graph
    from artifacts.graph.smoke_run import check_and_run
    from artifacts.graph.tensor_content import TensorReader
    from artifacts.graph.tensors import is_external, iter_tensors

    source = find_model(model)
    graph = load_graph(source)
    tensors = list(iter_tensors(graph))
    if not any(tensor.data_type == TensorProto.FLOAT16 for tensor in tensors):
        raise StepError(f"{source.name}: has no fp16 tensor", "give the output of convert_fp16")
    with TensorReader(source) as reader:
        repairs = repair_casts(graph, reader)
    external = any(is_external(tensor) for tensor in tensors)
    save_graph(graph, out / source.name, source_folder=source.parent, external=external)
    return asdict(repairs) | check_and_run(out / source.name, source, finite=True)

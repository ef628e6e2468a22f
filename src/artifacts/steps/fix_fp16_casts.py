"""Repair the Casts of a model converted to fp16, by type, so that it loads and its lengths stay exact.

A converter turns weights and values to fp16 and leaves the Casts inside as they were: `Cast(to=FLOAT)` now feeds fp32
into nodes whose weights are fp16, and ONNX Runtime refuses the file. Flipping all of them would make it load and spoil
it: the encoder computes lengths in floats, and integers in fp16 are exact up to 2048 only (20.5 s of features). So
types are propagated through the graph, bodies of If, Loop and Scan included, and only what disagrees is changed:

- Casts whose readers need fp16 become fp16; those that feed fp32 nodes or the model's outputs stay;
- arithmetic on lengths and positions is made fp32 throughout, whatever the converter did to it;
- fp16 inputs of the model become fp32 again (with a Cast behind them), outputs keep their declared type.

A model in which everything agrees (a decoder_joint usually) is passed on: there was nothing that had to be changed.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")


class Params(StepParams):
    """There is nothing to choose: types decide."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the repaired model to `out` under its name, with external data if it has them now, and run it once.

    Weights are copied, not loaded. Metrics count Casts: changed to the other type, inserted, removed (they led nowhere
    any more), kept as fp32; and constants widened to fp32, model inputs restored to fp32, nodes that compute on lengths
    or positions. Raises StepError for a model that cannot be read or typed, that holds no fp16, whose lengths were
    rounded by the conversion, or that ONNX Runtime cannot run with finite results on the CPU. (It computes much of fp16
    in fp32 there: what overflows in fp16 shows on other devices only.)
    """
    from onnx import TensorProto

    from artifacts.graph.cast_repair import repair_casts
    from artifacts.graph.model_file import check_model, find_model, load_graph, model_bytes, save_graph
    from artifacts.graph.tensor_reader import TensorReader
    from artifacts.graph.tensors import is_external, iter_tensors
    from artifacts.graph.trial_run import trial_run
    from artifacts.runtime.sessions import open_session

    source = find_model(model)
    target = out / source.name
    graph = load_graph(source)
    tensors = list(iter_tensors(graph))
    if not any(tensor.data_type == TensorProto.FLOAT16 for tensor in tensors):
        raise StepError(f"{source.name}: holds no fp16 tensor", "give the output of convert_fp16")
    with TensorReader(source) as reader:
        repairs = repair_casts(graph, reader)
    save_graph(graph, target, source_folder=model, external=any(is_external(tensor) for tensor in tensors))
    check_model(target)
    trial_run(open_session(target, threads=1), target.name, model_bytes(out))
    return asdict(repairs)

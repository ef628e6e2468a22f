"""Fuse predictor and joint into the decoder_joint graph that onnx-asr and others run once per decoding step.

NeMo exports these two as one graph. Other consumers expect its names, dtypes and dimensions:
`encoder_outputs` [B, D, T], `targets` [B, U] int32, `target_length` [B] int32, `input_states_1` and `_2` [L, B, H] →
`outputs` [B, T, U, V] (raw logits: tokens, blank, durations), `prednet_lengths` [B] int32 (the `target_length` given),
`output_states_1` and `_2` [L, B, H]. L and H are numbers in the file: onnx-asr creates its first states from them.
The step fuses the two graphs rather than exports the checkpoint. So the result has the operators and weights that were
measured there, and the step needs no NeMo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, OperatorSetIdProto, ValueInfoProto
    from onnxruntime import InferenceSession

TOOLS = ("onnx", "protobuf")
HEADLINE = ("outputs_max_abs_diff",)

# The fused graph runs the same operators on the same values; a runtime may only combine them differently.
MAX_ABS_DIFF = 1e-6

PREDICTOR_NAMES = {
    "y": "y", "h": "input_states_1", "c": "input_states_2",
    "g": "g", "h_out": "output_states_1", "c_out": "output_states_2",
}  # fmt: skip
JOINT_NAMES = {"encoder_output": "encoder_outputs", "predictor_output": "g", "joint_output": "outputs"}

# The meaning of each dimension, whatever the graphs call it. B, T and U may be open, the others are numbers.
INPUT_DIMS = {
    "encoder_outputs": "BDT", "targets": "BU", "target_length": "B", "input_states_1": "LBH", "input_states_2": "LBH",
}  # fmt: skip
OPEN_DIMS = "BTU"


class Params(StepParams):
    """No parameters."""


def run(out: Path, params: Params, *, predictor: Path, joint: Path) -> dict[str, float]:
    """Write `decoder_joint-model.onnx` from the folders of the predictor and the joint.

    Metrics: the largest absolute difference of each output from the two graphs, run one after the other. Raises
    StepError if one is above 1e-6, or if the two graphs do not fit together.
    """
    from artifacts.graph.model_file import check_model, find_model, load_graph, save_graph
    from artifacts.graph.tensor_writer import embed_external_data, stored_tensors

    models = []
    paths = find_model(predictor), find_model(joint)
    for path, names in zip(paths, (PREDICTOR_NAMES, JOINT_NAMES), strict=True):
        model = load_graph(path)
        embed_external_data(stored_tensors(model, path.parent))
        found = {value.name for value in (*model.graph.input, *model.graph.output)}
        if found != set(names):
            raise StepError(
                f"{path.name}: inputs and outputs are {sorted(found)}, must be {sorted(names)}",
                "give the artifacts of export_predictor and export_joint, or artifacts made from them",
            )
        models.append(model)
    fused = out / "decoder_joint-model.onnx"
    save_graph(_fuse(*models), fused)
    check_model(fused)
    return _compare(fused, *paths)


def _fuse(predictor: ModelProto, joint: ModelProto) -> ModelProto:
    from onnx import TensorProto, helper

    _merge_opsets(predictor, joint)
    predictor.functions.extend(function for function in joint.functions if function not in predictor.functions)
    _rename(predictor.graph, "predictor/", PREDICTOR_NAMES)
    _rename(joint.graph, "joint/", JOINT_NAMES)
    values = _by_name((*predictor.graph.input, *predictor.graph.output, *joint.graph.output, joint.graph.input[0]))
    produced, consumed = _dims(values["g"]), _dims(_by_name(joint.graph.input)["g"])
    if produced != consumed:
        raise StepError(
            f"the predictor gives 'g' {produced}, the joint takes 'predictor_output' {consumed}",
            "export both from one checkpoint, with the same sizes",
        )
    tokens = _dims(values["y"])
    lengths = helper.make_tensor_value_info("target_length", TensorProto.INT32, tokens[:1])
    targets = helper.make_tensor_value_info("targets", TensorProto.INT32, tokens)
    prednet_lengths = helper.make_tensor_value_info("prednet_lengths", TensorProto.INT32, tokens[:1])
    fused = helper.make_graph(
        [
            helper.make_node("Cast", ["targets"], ["y"], "Cast", to=TensorProto.INT64),
            helper.make_node("Identity", ["target_length"], ["prednet_lengths"], "Identity"),
            *predictor.graph.node,
            *joint.graph.node,
        ],
        "decoder_joint",
        [values["encoder_outputs"], targets, lengths, values["input_states_1"], values["input_states_2"]],
        [values["outputs"], prednet_lengths, values["output_states_1"], values["output_states_2"]],
        [*predictor.graph.initializer, *joint.graph.initializer],
        value_info=[*predictor.graph.value_info, *joint.graph.value_info],
        sparse_initializer=[*predictor.graph.sparse_initializer, *joint.graph.sparse_initializer],
    )
    _check_dims(fused.input)
    predictor.graph.CopyFrom(fused)
    return predictor


def _merge_opsets(predictor: ModelProto, joint: ModelProto) -> None:
    """Add the joint's domains to the predictor's imports. Raises StepError for a domain with two versions."""
    versions = {_domain(opset): opset.version for opset in predictor.opset_import}
    for opset in joint.opset_import:
        domain = _domain(opset)
        if domain not in versions:
            predictor.opset_import.append(opset)
        elif versions[domain] != opset.version:
            raise StepError(
                f"the predictor and the joint use different opsets: {versions[domain]} and {opset.version} of {domain}",
                "export both with the same opset",
            )


def _domain(opset: OperatorSetIdProto) -> str:
    return opset.domain or "ai.onnx"  # both mean ONNX's own domain


def _rename(graph: GraphProto, prefix: str, names: Mapping[str, str]) -> None:
    """Rename inputs and outputs by the table, and add the prefix to all other names."""
    from artifacts.graph.nodes import subgraphs

    def new(name: str) -> str:
        return names.get(name, prefix + name) if name else name  # an empty name is an omitted optional input

    for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.name = new(item.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = new(sparse.values.name)
    for node in graph.node:
        if node.name:  # the prefix alone would be the name of many nodes
            node.name = prefix + node.name
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for subgraph in subgraphs(node):
            _rename(subgraph, prefix, names)


def _by_name(values: Iterable[ValueInfoProto]) -> dict[str, ValueInfoProto]:
    return {value.name: value for value in values}


def _dims(value: ValueInfoProto) -> list[int | str | None]:
    """Return a number, a name, or None for an unknown dimension."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]


def _check_dims(inputs: Iterable[ValueInfoProto]) -> None:
    """Raise StepError for an input of the wrong rank, or with an open dimension that must be a number."""
    for value in inputs:
        dims, meant = _dims(value), INPUT_DIMS[value.name]
        numbers = (isinstance(dim, int) or letter in OPEN_DIMS for dim, letter in zip(dims, meant, strict=False))
        if len(dims) != len(meant) or not all(numbers):
            raise StepError(
                f"'{value.name}' would be {dims}, it must be [{', '.join(meant)}] with numbers for all but B, T and U",
                "export the predictor and the joint with these dimensions",
            )


def _compare(fused: Path, predictor: Path, joint: Path) -> dict[str, float]:
    """Run the fused graph and the two graphs on random states and encoder frames, in several sizes."""
    from onnxruntime import InferenceSession

    from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_model
    from artifacts.untrusted.foreign_errors import foreign_errors

    fact, bound = f"{fused.name}: ONNX Runtime does not run it", bytes_for_model(3 * fused.stat().st_size)
    with bounded_memory(bound, fact), foreign_errors("onnxruntime", fact, "export both models again"):
        whole, first, second = (
            InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (fused, predictor, joint)
        )
        return _largest_differences(fused, whole, first, second)


def _largest_differences(
    fused: Path, whole: InferenceSession, first: InferenceSession, second: InferenceSession
) -> dict[str, float]:
    import numpy as np

    random = np.random.default_rng(0)
    largest: dict[str, float] = {}
    for batch, frames, tokens in [(1, 1, 1), (2, 7, 4), (4, 1, 1)]:
        sizes = {"B": batch, "T": frames, "U": tokens}
        feeds: dict[str, Any] = {}
        for value in whole.get_inputs():
            dims = zip(value.shape, INPUT_DIMS[value.name], strict=True)
            shape = [dim if isinstance(dim, int) else sizes[letter] for dim, letter in dims]
            is_float = value.type == "tensor(float)"
            feeds[value.name] = random.standard_normal(shape, np.float32) if is_float else np.ones(shape, np.int32)
        state = {"h": feeds["input_states_1"], "c": feeds["input_states_2"]}
        g, h_out, c_out = first.run(["g", "h_out", "c_out"], {"y": feeds["targets"].astype(np.int64), **state})
        frame = {"encoder_output": feeds["encoder_outputs"], "predictor_output": g}
        (outputs,) = second.run(["joint_output"], frame)
        expected = {"outputs": outputs, "output_states_1": h_out, "output_states_2": c_out}
        for (name, want), have in zip(expected.items(), whole.run(list(expected), feeds), strict=True):
            worst = float(np.max(np.abs(want - have)))
            if not worst <= MAX_ABS_DIFF:
                raise StepError(
                    f"{fused.name}: '{name}' differs by {worst:.3g} from predictor and joint run one after the other",
                    "report it: the graphs were fused wrongly",
                )
            largest[f"{name}_max_abs_diff"] = max(largest.get(f"{name}_max_abs_diff", 0.0), worst)
    return largest

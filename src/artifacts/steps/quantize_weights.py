"""Quantise a model's weights to int8 for the download; its activations, and the graph's arithmetic, stay float.

A quarter of the bytes, and no calibration: each large weight is stored as int8, and a DequantizeLinear in the graph
gives the float32 tensor back under its old name, every number within half a step of where it was. Activations lose
nothing, unlike with `quantize_dynamic`.

The file is for the download. Runtimes may dequantise it when they load it, at each run, or turn it into something else
(`docs/decisions/09-two-kinds-of-small.md` has what ONNX Runtime does); `quantize_nbits` makes the int8 to run.

The levels are asymmetric, as in onnx_shrink_ray: 256 from a tensor's least number to its largest, one of them 0.
Symmetric ones would save the zero point, a byte a channel, and be coarser wherever the two sides differ.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "protobuf")


class Params(StepParams):
    """The defaults are those of onnx_shrink_ray."""

    per_channel: bool = False
    """Whether each output channel of a weight has a scale of its own; which axis that is, says
    `artifacts.graph.quantization.channel_axis`. A weight without channels, say a table of positions, has one scale all
    the same."""
    min_elements: int = Field(default=16384, ge=1)
    """Tensors of more elements than this are quantised."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of nodes whose weights stay float."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now: weights are streamed then.

    The result is checked, and run once if it is one file; to run a larger one takes the memory of its float32 weights.

    Metrics: tensors quantised, the ops whose number changed, the furthest that a number of theirs may have moved, bytes
    before and after.
    Raises StepError for a model that cannot be read, is not fp32, is quantised already or has an opset without
    DequantizeLinear (10; per channel 13), for a name in `nodes_to_exclude` that no node has, for a weight that holds
    NaN or infinity or has no levels in float32, or if there is nothing to quantise or the result does not run.
    """
    from artifacts.graph.content import stored_content
    from artifacts.graph.model_file import check_model, find_model, load_graph, model_bytes
    from artifacts.graph.op_counts import changed_ops, op_counts
    from artifacts.graph.quantization.channel_axis import channel_axis
    from artifacts.graph.quantization.dequantize_nodes import check_opset, dequantize
    from artifacts.graph.quantization.large_weights import large_weights
    from artifacts.graph.quantization.levelled_content import Int8Content, largest_error
    from artifacts.graph.quantization.quantizer_input import check_excluded, check_float_model
    from artifacts.graph.quantization.replaced_weights import replace_contents
    from artifacts.graph.quantization.weight_blocks import shape_by_channel
    from artifacts.graph.tensor_writer import stored_tensors, write_data_files, write_protobuf
    from artifacts.graph.tensors import is_external

    source = find_model(model)
    target = out / source.name
    graph = load_graph(source)
    check_float_model(graph, source.name)
    check_excluded(params.nodes_to_exclude, graph, source.name)
    ops = op_counts(graph)
    try:
        check_opset(graph, per_channel=params.per_channel)
        weights = large_weights(graph, params.min_elements, params.nodes_to_exclude)
        axes = [channel_axis(it.readers, len(it.tensor.dims)) if params.per_channel else None for it in weights]
        contents = [
            Int8Content(
                it.tensor.name, stored_content(it.tensor, source.parent), shape_by_channel(it.tensor.dims, axis)
            )
            for it, axis in zip(weights, axes, strict=True)
        ]
        new = [(it.tensor, content) for it, content in zip(weights, contents, strict=True)]
        stored = stored_tensors(graph, source.parent)
        external = any(is_external(place.tensor) for place, _ in stored)
        stored = replace_contents(stored, new)
        dequantized = dequantize(graph, list(zip(weights, axes, strict=True)))
        if external:
            write_data_files(stored, out, lambda _: f"{source.name}.data")
    except StepError as error:
        raise StepError(f"{source.name}: {error.fact}", error.fix) from None
    for added, content in zip(dequantized, contents, strict=True):
        assert content.levels is not None  # known since the weight was written
        added.give(content.levels)
    write_protobuf(graph, target)
    check_model(target)
    if not external:
        _run_once(target)
    changes = changed_ops(ops, op_counts(graph))
    sizes = {"bytes_before": model_bytes(model), "bytes_after": model_bytes(out)}
    return {"tensors": len(weights), **changes, "largest_error": largest_error(contents), **sizes}


def _run_once(path: Path) -> None:
    from artifacts.graph.trial_run import trial_run
    from artifacts.runtime.sessions import open_session

    trial_run(open_session(path, threads=1), path.name, path.stat().st_size)

"""Quantise a model's weights to int8 for a small download; the graph dequantises them and computes in float.

The result has a quarter of the bytes, and needs no calibration. Each large weight is stored as int8, and a
DequantizeLinear in the graph gives the float32 tensor under its old name. Every number is within half a scale of its
old value. Activations lose nothing, unlike with `quantize_dynamic`.

The file is for the download. Runtimes may dequantise it when they load it, at each run, or turn it into something else
(`docs/decisions/09-two-kinds-of-small.md` says what ONNX Runtime does). `quantize_nbits` makes the int8 to run.

The levels are asymmetric, as in onnx_shrink_ray: 256 from a tensor's smallest number to its largest, one of them 0.
Symmetric levels would save the zero point, a byte a channel, and be coarser wherever the two sides differ.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "protobuf")
HEADLINE = ("tensors", "largest_error", "bytes_after")


class Params(StepParams):
    """The defaults are those of onnx_shrink_ray."""

    per_channel: bool = False
    """Whether each output channel of a weight has its own scale; `artifacts.graph.quantization.dequantize_linear` lists
    the axes. A weight without channels, say a table of positions, always has one scale."""
    min_elements: int = Field(default=16384, ge=1)
    """Tensors with more elements are quantised."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of nodes whose weights stay float."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now: then weights are streamed.

    The result is checked, and run once if it is one file. To run a larger one takes the memory of its float32 weights.

    Metrics: tensors quantised, the ops whose number changed, the most that a number of the tensors may have moved,
    bytes before and after.
    Raises StepError as `open_float_model` does, and for an opset without DequantizeLinear (10; per channel 13). Also
    for a weight that has NaN or infinity or no levels in float32, if there is nothing to quantise, or as
    `check_and_run` does for the result.
    """
    from artifacts.graph.change_metrics import changed_bytes, changed_ops, op_counts
    from artifacts.graph.model_file import check_model, errors_of
    from artifacts.graph.quantization.dequantize_linear import channel_axis, check_opset, dequantize
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.large_weights import large_weights, replace_contents
    from artifacts.graph.quantization.weight_grid import AsymmetricInt8Content, largest_error, shape_by_channel
    from artifacts.graph.smoke_run import check_and_run
    from artifacts.graph.tensor_content import stored_content
    from artifacts.graph.tensor_writer import any_external, stored_tensors, write_data_files, write_protobuf

    source, graph = open_float_model(model, params.nodes_to_exclude)
    target = out / source.name
    ops = op_counts(graph)
    with errors_of(source):
        check_opset(graph, per_channel=params.per_channel)
        weights = large_weights(graph, params.min_elements, params.nodes_to_exclude)
        axes = [channel_axis(one.consumers, len(one.tensor.dims)) if params.per_channel else None for one in weights]
        contents = []
        for one, axis in zip(weights, axes, strict=True):
            stored_now, shape = stored_content(one.tensor, source.parent), shape_by_channel(one.tensor.dims, axis)
            contents.append(AsymmetricInt8Content(one.tensor.name, stored_now, shape))
        new = [(one.tensor, content) for one, content in zip(weights, contents, strict=True)]
        stored = replace_contents(stored_tensors(graph, source.parent), new)
        external = any_external(stored)
        dequantized = dequantize(graph, list(zip(weights, axes, strict=True)))
        if external:
            write_data_files(stored, out, lambda _: f"{source.name}.data")
    for added, content in zip(dequantized, contents, strict=True):
        assert content.grid is not None  # known since the weight was written
        added.set_values(content.grid)
    write_protobuf(graph, target)
    if external:
        check_model(target)
    smoke = {} if external else check_and_run(target, source)
    changes = changed_ops(ops, op_counts(graph)) | {"largest_error": largest_error(contents)}
    return {"tensors": len(weights), **changes, **changed_bytes(model, out), **smoke}

"""Quantise a model's MatMuls to int8, weights and activations, with scales that were calibrated on speech.

A calibrated scale does not grow with the recording, as the scales of `quantize_dynamic` do: soft speech stays, however
loud the rest is. The step needs flat activations, which `smooth_activations` makes, and statistics of the model that is
quantised. Weights have a scale for each column. All but MatMuls by a constant stays float: convolutions are few bytes
and have the largest errors. Exclude the MatMul that ends the subsampling too, in `nodes_to_exclude`. All layers depend
on its output: more than half of the embedded encoder's error comes from it alone (2.2e-4 of the output's energy with
it, 1.0e-4 without).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.graph.quantization.static_int8 import StaticMatMul

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")
HEADLINE = ("nodes_quantized", "nodes_left_float", "mean_error")

REPORT_NAME = "quantized_nodes.json"


class Params(StepParams):
    """Which MatMuls are quantised, to which ranges, and to which nodes."""

    format: Literal["qdq", "qoperator"] = "qdq"
    """'qdq': QuantizeLinear and DequantizeLinear around each MatMul. ONNX Runtime turns them into one node
    (MatMulIntegerToFloat) when it loads the model, and TensorRT, OpenVINO and QNN support them. 'qoperator': a
    MatMulInteger, a Cast and a Mul instead, with the same numbers; slower, for runtimes that run a graph as it is."""
    activation_range: Literal["minmax", "percentile"] = "percentile"
    """The range of a uint8 activation. 'minmax': from the smallest to the largest calibrated value. 'percentile':
    magnitudes up to the calibrated percentile, which one frame cannot move. On the embedded encoder both have the same
    error, and the percentile gives fewer wrong words."""
    reduce_range: bool = True
    """Whether weights get 7 bits. With 8, two products u8 × s8 exceed 16 bits. Processors without VNNI (AMD before
    Zen 4, Intel with AVX2 alone), and some wasm runtimes, add them in 16 bits: outputs are wrong there. Use false only
    for targets with VNNI, ARM or a GPU. The metric `saturating_weights` counts the weights that would saturate."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of MatMuls that stay float."""
    exclude_worst: int = Field(0, ge=0)
    """Number of further MatMuls to keep in float: those with the largest expected error on the sample frames."""


def run(out: Path, params: Params, *, model: Path, statistics: Path) -> dict[str, float | int | str]:
    """Write the quantised model to `out` under its name, run it once, and write `quantized_nodes.json`.

    That file lists the nodes that were quantised, and those that `exclude_worst` left float.

    Metrics: nodes quantised and left float, values quantised, weights that saturate without VNNI (0 with
    `reduce_range`), the ops whose number changed, bytes before and after. Also the mean and the largest relative
    squared error of the quantised nodes, and each node's as `error:<node>`, in the order of the expected error.
    Raises StepError as `open_float_model` does, for statistics of another model, and for a weight that has NaN or
    infinity or becomes all zeros. Also if no node was quantised, or as `check_and_run` does for the result.
    """
    from artifacts.graph.change_metrics import changed_bytes, changed_ops, op_counts
    from artifacts.graph.model_file import load_graph
    from artifacts.graph.quantization.activation_statistics import StatisticsReader
    from artifacts.graph.quantization.calibrated_matmuls import weight_limit
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.int8_sums import check_sums, saturating_weights
    from artifacts.graph.quantization.matrix_content import write_replaced
    from artifacts.graph.quantization.static_int8 import measure_matmuls, quantize_matmuls
    from artifacts.graph.quantization.weight_matmuls import matmuls_by_activation, matrices_to_initializers
    from artifacts.graph.smoke_run import check_and_run
    from artifacts.graph.tensor_content import TensorReader

    source, graph = open_float_model(model, params.nodes_to_exclude)
    target, limit = out / source.name, weight_limit(params.reduce_range)
    ops_before = op_counts(graph)
    matrices_to_initializers(graph)
    matmuls = matmuls_by_activation(graph, params.nodes_to_exclude)
    measured = StatisticsReader(statistics)
    measured.check_model(source)
    clipped = params.activation_range == "percentile"
    found = [
        one for group in matmuls.values() for one in measure_matmuls(group, measured, source.parent, limit, clipped)
    ]
    order = sorted(range(len(found)), key=lambda index: -found[index].expected_error)
    worst = [found[index] for index in order[: params.exclude_worst]]
    kept = [found[index] for index in sorted(order[params.exclude_worst :])]
    if not kept:
        raise StepError(
            f"{source.name}: 0 nodes quantised of {len(found)} MatMuls by constant weights", "exclude fewer nodes"
        )
    contents = quantize_matmuls(graph, kept, limit, params.format, source.parent)
    ops = changed_ops(ops_before, op_counts(graph))
    write_replaced(graph, source.parent, contents, target)
    smoke = check_and_run(target, source)
    with TensorReader(target) as reader:
        written = load_graph(target)
        if params.reduce_range:
            check_sums(written, reader)
        saturating = len(saturating_weights(written, reader))
    _write_report(out / REPORT_NAME, kept, worst)
    return {
        "nodes_quantized": len(kept),
        "values_quantized": len({one.matmul.activation for one in kept}),
        "nodes_left_float": ops_before["MatMul"] - len(kept),
        "saturating_weights": saturating,
        "mean_error": sum(one.error for one in kept) / len(kept),
        "largest_error": max(one.error for one in kept),
        **ops,
        **changed_bytes(model, out),
        **{f"error:{found[index].node_name}": found[index].error for index in order},
        **smoke,
    }


def _write_report(path: Path, kept: Sequence[StaticMatMul], worst: Sequence[StaticMatMul]) -> None:
    """Write the report. It does not contain errors: their last bits depend on the processor."""
    report = {title: [one.node_name for one in nodes] for title, nodes in (("quantized", kept), ("left_float", worst))}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

"""Quantise a model's MatMuls to 8 bits, activations too, with scales that were calibrated on speech.

A scale that is known beforehand does not grow with the recording, as that of `quantize_dynamic` does: what is soft
stays, however loud the rest. It asks for flat activations, which `smooth_activations` makes, and for statistics of
the very model that is quantised. Weights have a scale for each column. What is not a MatMul by a constant stays float:
convolutions are few bytes and stray furthest. So should the MatMul that ends the subsampling, in `nodes_to_exclude`:
all layers read what it makes, and on the embedded encoder more than half of the whole error comes from it alone
(2.2e-4 of the output's energy with it, 1.0e-4 without).
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

REPORT_NAME = "quantized_nodes.json"


class Params(StepParams):
    """What is quantised, to what, and how that is written in the graph."""

    format: Literal["qdq", "qoperator"] = "qdq"
    """'qdq': QuantizeLinear and DequantizeLinear around each MatMul, which ONNX Runtime turns into one node
    (MatMulIntegerToFloat) when it loads the model, and others (TensorRT, OpenVINO, QNN) read as well. 'qoperator': a
    MatMulInteger, a Cast and a Mul in its place, of the same numbers; slower, and for what runs a graph as it is."""
    activation_range: Literal["minmax", "percentile"] = "percentile"
    """What a uint8 spans: all that was seen, or magnitudes up to the percentile that was calibrated, which one frame
    cannot move. On the embedded encoder both leave the same error, and the percentile fewer wrong words."""
    reduce_range: bool = True
    """Whether weights get 7 bits. With 8, two products u8 × s8 exceed the 16 bits in which processors without VNNI (AMD
    before Zen 4, Intel with AVX2 alone), and some wasm runtimes, add them: outputs are wrong there. Use false only for
    targets with VNNI, ARM or a GPU. The metric `saturating_weights` counts the weights that would saturate."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of MatMuls that stay float."""
    exclude_worst: int = Field(0, ge=0)
    """Number of further MatMuls to keep in float: those with the largest expected error on the sample frames."""


def run(out: Path, params: Params, *, model: Path, statistics: Path) -> dict[str, float | int | str]:
    """Write the quantised model to `out` under its name, run it once, and write `quantized_nodes.json`: the nodes that
    were quantised, and those that `exclude_worst` left float.

    Metrics: nodes quantised and left float, values quantised, weights that saturate without VNNI (0 with
    `reduce_range`), the mean and the largest relative squared error of the quantised nodes, the ops whose number
    changed, bytes before and after, and each node's error as `error:<node>`, in the order of the expected error.
    Raises StepError for a model that cannot be read, is not fp32, is quantised already or has weights with NaN or
    infinity, for a name in `nodes_to_exclude` that no node has, for statistics of another model, or if no node was
    quantised, a weight did not survive it, or the result does not run with finite numbers.
    """
    from artifacts.graph.model_file import check_model, find_model, load_graph, model_bytes
    from artifacts.graph.op_counts import changed_ops, op_counts
    from artifacts.graph.quantization.activation_statistics import StatisticsReader
    from artifacts.graph.quantization.calibrated_matmuls import matmuls_by_value
    from artifacts.graph.quantization.int8_sums import check_sums, saturating_weights
    from artifacts.graph.quantization.matrix_content import write_replaced
    from artifacts.graph.quantization.quantized_error import weight_limit
    from artifacts.graph.quantization.quantizer_input import check_excluded, check_float_model
    from artifacts.graph.quantization.static_int8 import measure_matmuls, quantize_matmuls
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers
    from artifacts.graph.tensor_reader import TensorReader
    from artifacts.graph.trial_run import trial_run
    from artifacts.runtime.sessions import open_session

    source, limit = find_model(model), weight_limit(params.reduce_range)
    target = out / source.name
    graph = load_graph(source)
    check_float_model(graph, source.name)
    check_excluded(params.nodes_to_exclude, graph, source.name)
    ops_before = op_counts(graph)
    matrices_to_initializers(graph)
    readers = matmuls_by_value(graph, params.nodes_to_exclude)
    measured = StatisticsReader(statistics)
    measured.check_model(source)
    clipped = params.activation_range == "percentile"
    found = [
        one for group in readers.values() for one in measure_matmuls(group, measured, source.parent, limit, clipped)
    ]
    order = sorted(range(len(found)), key=lambda place: -found[place].expected_error)
    worst = [found[place] for place in order[: params.exclude_worst]]
    kept = [found[place] for place in sorted(order[params.exclude_worst :])]
    if not kept:
        raise StepError(
            f"{source.name}: 0 nodes quantised of {len(found)} MatMuls by constant weights", "exclude fewer nodes"
        )
    contents = quantize_matmuls(graph, kept, limit, params.format, source.parent)
    ops = changed_ops(ops_before, op_counts(graph))
    write_replaced(graph, source.parent, contents, target)
    check_model(target)
    with TensorReader(target) as reader:
        written = load_graph(target)
        if params.reduce_range:
            check_sums(written, reader)
        saturating = len(saturating_weights(written, reader))
    trial_run(open_session(target, threads=1), target.name, model_bytes(out))
    _write_report(out / REPORT_NAME, kept, worst)
    return {
        "nodes_quantized": len(kept),
        "values_quantized": len({one.matmul.activation for one in kept}),
        "nodes_left_float": ops_before["MatMul"] - len(kept),
        "saturating_weights": saturating,
        "mean_error": sum(one.error for one in kept) / len(kept),
        "largest_error": max(one.error for one in kept),
        **ops,
        "bytes_before": model_bytes(model),
        "bytes_after": model_bytes(out),
        **{f"error:{found[place].node_name}": found[place].error for place in order},
    }


def _write_report(path: Path, kept: Sequence[StaticMatMul], worst: Sequence[StaticMatMul]) -> None:
    """Write the report. It leaves errors out: their last bits depend on the processor."""
    report = {title: [one.node_name for one in nodes] for title, nodes in (("quantized", kept), ("left_float", worst))}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

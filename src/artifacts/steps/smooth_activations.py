"""Even out a model's activations for quantisation: the loudest channels' spread goes into the weights.

Large encoders have channels a hundred times as loud as the rest, and one scale for all of them leaves the rest no
digits. SmoothQuant (Xiao et al. 2022) divides each channel of an activation by a number and multiplies the rows of the
weights that read it: the function is the same, the activation flat, and the weights, which have a scale for each
column, take what was taken from it. The division is folded into the node that makes the activation where nothing else
reads it, and is a Mul otherwise. The result is float32 still: `quantize_static` is to follow, on statistics of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.graph.quantization.activation_statistics import StatisticsReader
    from artifacts.graph.quantization.smoothing import Smoothing
    from artifacts.graph.quantization.weight_matmuls import WeightMatMul

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")

REPORT_NAME = "smoothing.json"


class Params(StepParams):
    """How far to smooth, and by which statistics."""

    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["search"] = "search"
    """s = max|X|^α / max|W|^(1-α). 'search' tries α from 0 to 1 for each value, and no smoothing, and takes what
    leaves the consumers of the value, quantised, with the smallest expected error on the sample frames."""
    alpha_step: float = Field(0.1, ge=0.01, le=1)
    """The step of the search; 0 and 1 are tried always."""
    statistic: Literal["absmax", "percentile"] = "absmax"
    """What max|X| is: the largest magnitude of each channel, or the percentile that was calibrated."""
    reduce_range: bool = True
    """Whether the weights will be quantised to 7 bits: as `quantize_static` is told."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of MatMuls that keep their weights and their input."""


def run(out: Path, params: Params, *, model: Path, statistics: Path) -> dict[str, float | int | str]:
    """Write the smoothed model to `out` under its name, and `smoothing.json`: α of each value, and its op.

    Metrics: values smoothed and left, foldings and explicit Muls, the mean α, the mean over values of the quantised
    consumers' relative squared error before and after, the ops whose number changed, bytes before and after, and each
    value's error as `error_before:<value>` and `error:<value>`.
    Raises StepError for a model that cannot be read, is not fp32, is quantised already or has weights with NaN or
    infinity, for a name in `nodes_to_exclude` that no node has, for statistics of another model, or if no value was
    smoothed.
    """
    from artifacts.graph.model_file import check_model, find_model, load_graph, model_bytes
    from artifacts.graph.op_counts import changed_ops, op_counts
    from artifacts.graph.quantization.activation_statistics import StatisticsReader
    from artifacts.graph.quantization.calibrated_matmuls import matmuls_by_value
    from artifacts.graph.quantization.fold_scales import EXPLICIT_MUL, ScaledValue, fold_scales
    from artifacts.graph.quantization.matrix_content import write_replaced
    from artifacts.graph.quantization.quantizer_input import check_excluded, check_float_model
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers

    source = find_model(model)
    graph = load_graph(source)
    check_float_model(graph, source.name)
    check_excluded(params.nodes_to_exclude, graph, source.name)
    ops_before = op_counts(graph)
    matrices_to_initializers(graph)
    readers = matmuls_by_value(graph, params.nodes_to_exclude)
    measured = StatisticsReader(statistics)
    measured.check_model(source)
    chosen = {value: _choose(group, measured, source.parent, params) for value, group in readers.items()}
    smoothed = {value: one for value, one in chosen.items() if one.alpha is not None}
    if not smoothed:
        raise StepError(
            f"{source.name}: 0 values smoothed of {len(chosen)} that MatMuls multiply by weights",
            "quantise the model as it is",
        )
    scaled = [
        ScaledValue(value, [reader.node for reader in readers[value]], one.scale) for value, one in smoothed.items()
    ]
    names = {value: [reader.node.name for reader in group] for value, group in readers.items()}
    folded = fold_scales(graph, scaled, source.parent)
    ops = changed_ops(ops_before, op_counts(graph))
    write_replaced(graph, source.parent, folded.contents, out / source.name)
    check_model(out / source.name)
    _write_report(out / REPORT_NAME, chosen, folded.into, names)
    muls = sum(into == EXPLICIT_MUL for into in folded.into.values())
    return {
        "values_smoothed": len(smoothed),
        "values_left": len(chosen) - len(smoothed),
        "folded": len(smoothed) - muls,
        "explicit_muls": muls,
        "mean_alpha": sum(one.alpha or 0.0 for one in smoothed.values()) / len(smoothed),
        "mean_error_before": sum(one.error_before for one in chosen.values()) / len(chosen),
        "mean_error": sum(one.error for one in chosen.values()) / len(chosen),
        **ops,
        "bytes_before": model_bytes(model),
        "bytes_after": model_bytes(out),
        **{f"error_before:{value}": one.error_before for value, one in chosen.items()},
        **{f"error:{value}": one.error for value, one in chosen.items()},
    }


def _choose(readers: list[WeightMatMul], measured: StatisticsReader, folder: Path, params: Params) -> Smoothing:
    from artifacts.graph.quantization.calibrated_matmuls import read_calibrated
    from artifacts.graph.quantization.quantized_error import weight_limit
    from artifacts.graph.quantization.smoothing import alpha_grid, choose_smoothing

    statistics, weights = read_calibrated(readers, measured, folder)
    peaks = statistics.abs_max if params.statistic == "absmax" else statistics.percentile
    alphas = alpha_grid(params.alpha_step) if params.alpha == "search" else [params.alpha]
    limit = weight_limit(params.reduce_range)
    return choose_smoothing(statistics, peaks, weights, alphas, limit, may_leave=params.alpha == "search")


def _write_report(
    path: Path, chosen: Mapping[str, Smoothing], into: Mapping[str, str], names: Mapping[str, list[str]]
) -> None:
    """Write the report. It leaves errors out: their last bits depend on the processor."""
    values = [
        {
            "value": value,
            "readers": names[value],
            "alpha": one.alpha,
            "divided_in": into.get(value),
        }
        for value, one in chosen.items()
    ]
    path.write_text(json.dumps({"values": values}, indent=1) + "\n", encoding="utf-8")

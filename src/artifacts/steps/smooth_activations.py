"""SmoothQuant: move activation outliers into the weights, so that int8 loses less; the model stays float32.

Large encoders have channels a hundred times as large as the rest, and one scale for all of them leaves the rest few
levels. SmoothQuant (Xiao et al. 2022) divides each channel of an activation by a number, and multiplies the rows of its
weights by the same number. The function is the same and the activation flat. The weights have a scale
for each column, and can represent what was moved into them. The division is folded into the node that produces the
activation if that node has no other consumer, and is a Mul otherwise. `quantize_static` must follow, on statistics of
the result.
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
HEADLINE = ("values_smoothed", "mean_error_before", "mean_error")

REPORT_NAME = "smoothing.json"


class Params(StepParams):
    """The strength of smoothing, and the statistics that it uses."""

    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["search"] = "search"
    """s = max|X|^α / max|W|^(1-α). 'search' tries α from 0 to 1 for each value, and no smoothing. It takes the choice
    with the smallest expected error of the value's quantised consumers on the sample frames."""
    alpha_step: float = Field(0.1, ge=0.01, le=1)
    """The step of the search; 0 and 1 are always tried."""
    statistic: Literal["absmax", "percentile"] = "absmax"
    """What max|X| is: the largest magnitude of each channel, or the percentile that was calibrated."""
    reduce_range: bool = True
    """Whether the weights will be quantised to 7 bits: give the same value to `quantize_static`."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of MatMuls that keep their weights and their input."""


def run(out: Path, params: Params, *, model: Path, statistics: Path) -> dict[str, float | int | str]:
    """Write the smoothed model to `out` under its name, and `smoothing.json`: α of each value, and the op it went into.

    Metrics: values smoothed and left, folded divisions and explicit Muls, the mean α, the ops whose number changed,
    bytes before and after. Also the relative squared error of a value's quantised consumers, before and after: its mean
    over values, and each value's as `error_before:<value>` and `error:<value>`.
    Raises StepError as `open_float_model` does, for statistics of another model, and for a weight that has NaN or
    infinity. Also if no value was smoothed.
    """
    from artifacts.graph.change_metrics import changed_bytes, changed_ops, op_counts
    from artifacts.graph.model_file import check_model
    from artifacts.graph.quantization.activation_statistics import StatisticsReader
    from artifacts.graph.quantization.divide_values import EXPLICIT_MUL, ScaledValue, divide_values
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.matrix_content import write_replaced
    from artifacts.graph.quantization.weight_matmuls import matmuls_by_activation, matrices_to_initializers

    source, graph = open_float_model(model, params.nodes_to_exclude)
    ops_before = op_counts(graph)
    matrices_to_initializers(graph)
    matmuls = matmuls_by_activation(graph, params.nodes_to_exclude)
    measured = StatisticsReader(statistics)
    measured.check_model(source)
    chosen = {value: _choose(group, measured, source.parent, params) for value, group in matmuls.items()}
    smoothed = {value: one for value, one in chosen.items() if one.alpha is not None}
    if not smoothed:
        raise StepError(
            f"{source.name}: 0 values smoothed of {len(chosen)} that MatMuls multiply by weights",
            "quantise the model as it is",
        )
    scaled = [
        ScaledValue(value, [matmul.node for matmul in matmuls[value]], one.scale) for value, one in smoothed.items()
    ]
    names = {value: [matmul.node.name for matmul in group] for value, group in matmuls.items()}
    divided = divide_values(graph, scaled, source.parent)
    ops = changed_ops(ops_before, op_counts(graph))
    write_replaced(graph, source.parent, divided.contents, out / source.name)
    check_model(out / source.name)
    _write_report(out / REPORT_NAME, chosen, divided.into, names)
    muls = sum(into == EXPLICIT_MUL for into in divided.into.values())
    return {
        "values_smoothed": len(smoothed),
        "values_left": len(chosen) - len(smoothed),
        "folded": len(smoothed) - muls,
        "explicit_muls": muls,
        "mean_alpha": sum(one.alpha or 0.0 for one in smoothed.values()) / len(smoothed),
        "mean_error_before": sum(one.error_before for one in chosen.values()) / len(chosen),
        "mean_error": sum(one.error for one in chosen.values()) / len(chosen),
        **ops,
        **changed_bytes(model, out),
        **{f"error_before:{value}": one.error_before for value, one in chosen.items()},
        **{f"error:{value}": one.error for value, one in chosen.items()},
    }


def _choose(matmuls: list[WeightMatMul], measured: StatisticsReader, folder: Path, params: Params) -> Smoothing:
    from artifacts.graph.quantization.calibrated_matmuls import read_calibrated, weight_limit
    from artifacts.graph.quantization.smoothing import alpha_grid, choose_smoothing

    statistics, weights = read_calibrated(matmuls, measured, folder)
    peaks = statistics.abs_max if params.statistic == "absmax" else statistics.percentile
    alphas = alpha_grid(params.alpha_step) if params.alpha == "search" else [params.alpha]
    limit = weight_limit(params.reduce_range)
    return choose_smoothing(statistics, peaks, weights, alphas, limit, may_leave=params.alpha == "search")


def _write_report(
    path: Path, chosen: Mapping[str, Smoothing], into: Mapping[str, str], names: Mapping[str, list[str]]
) -> None:
    """Write the report. It does not contain errors: their last bits depend on the processor."""
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

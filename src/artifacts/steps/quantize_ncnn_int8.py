"""Quantise an ncnn network to int8: by a table of calibrated scales, or with scales computed at run time.

The files are those of ncnn's own quantiser (`ncnn2int8`), which no package ships. With a `table`, each convolution and
InnerProduct that it lists becomes int8. Each output channel has a scale of its own, and the layer's input has the
calibrated one. LSTM, Gemm and Embed need no table: ncnn scales their inputs by the largest value at run time. All other
layers stay float.

Without a table, quantise what pnnx wrote: linear layers are Gemms, nothing is calibrated, and no input is clipped.
With a table, run `rewrite_ncnn_linears` and a calibration first: more layers become int8 and weights have finer scales,
but inputs beyond a threshold are clipped. Measure which one loses fewer words. Of the embedded FastConformer's words
(clean, noise at 1 dB, soft endings: 1898 words) 2.63 % are wrong in float32. It is 2.79 % without a table and 2.85 %
with one, by `kl` and `absmax` alike, and the files have the same size. On an LSTM transducer of 83 million random
weights, the output without a table was 21 dB closer to float32.

Quantise before `tag_sherpa_ncnn`: ncnn's own tools do not load a network with sherpa-ncnn's layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.ncnn.param_file import Layer, ParamFile
    from artifacts.ncnn.scale_table import ScaleTable
    from artifacts.ncnn.weights_file import LayerWeights

TOOLS = ("ncnn", "numpy")
HEADLINE = ("int8_layers", "layers_left_float", "bytes_after")


class Params(StepParams):
    """Which layers become int8, and how the others are stored."""

    types_without_table: tuple[Literal["Embed", "Gemm", "LSTM"], ...] = ("Embed", "Gemm", "LSTM")
    """Layer types that become int8 without a table."""
    layers_to_exclude: tuple[str, ...] = ()
    """Names of layers that stay float."""
    float_weights: Literal["fp16", "fp32"] = "fp16"
    """Storage of weights that stay float; `fp32` leaves them unchanged. Biases of convolutions and InnerProducts are
    always fp32."""


def run(out: Path, params: Params, *, model: Path, table: Path | None = None) -> dict[str, float | int | str]:
    """Write the int8 form of `model` to `out` under the same file names, and load it once with ncnn.

    `table` is the folder of a calibration step, which contains one table a network, or a table file.

    Metrics: int8 layers in all and by type, layers left float of the types that may be int8, bytes before and after.
    Raises StepError for files that are not an ncnn network, for a network with int8 layers, and for a table of another
    network. Raises it for a name that no layer has, and for weights with NaN or infinity. Raises it if no layer was
    quantised or ncnn does not load the result.
    """
    from artifacts.ncnn.layer_fields import INT8_TERM, is_int8
    from artifacts.ncnn.param_file import find_net, read_param, require_layers
    from artifacts.ncnn.runtime import run_isolated
    from artifacts.ncnn.scale_table import find_table, read_table
    from artifacts.ncnn.weights_file import network_bytes, read_weights, write_network

    source, weights_path = find_net(model)
    file = read_param(source)
    if already := [layer.name for layer in file.layers if is_int8(layer)]:
        raise StepError(f"{source.name}: layer '{already[0]}' is int8 already", "give the network in fp32")
    require_layers(file, params.layers_to_exclude, f"{source.name}: layers_to_exclude")
    table_path = find_table(table, source.name) if table else None
    scales = read_table(table_path) if table_path else None
    if table_path and scales:
        require_layers(file, scales.layers, table_path.name)
    param = write_network(_quantized(file, read_weights(file, weights_path), scales, params), source, out)
    made = read_param(param)
    read_weights(made, param.with_suffix(".bin"))
    counts = {kind: sum(layer.type == kind and is_int8(layer) for layer in made.layers) for kind in INT8_TERM}
    if not any(counts.values()):
        raise StepError(
            f"{source.name}: 0 layers quantised: none that is not excluded is of the types "
            f"{', '.join(params.types_without_table)}{'' if scales else ', and no table is given'}",
            "give a table of its convolutions and InnerProducts (calibrate_ncnn, calibrate_sherpa_ncnn), "
            "or exclude fewer layers",
        )
    run_isolated(param, param.with_suffix(".bin"), [])
    left = sum(layer.type in INT8_TERM and not is_int8(layer) for layer in made.layers)
    return {
        "int8_layers": sum(counts.values()),
        **{f"int8_{kind}": count for kind, count in counts.items() if count},
        "layers_left_float": left,
        "bytes_before": network_bytes(source),
        "bytes_after": network_bytes(param),
    }


def _quantized(
    file: ParamFile, weights: dict[str, LayerWeights], scales: ScaleTable | None, params: Params
) -> Iterator[tuple[Layer, LayerWeights]]:
    """Yield each layer quantised by the table, if it lists the layer; else without a table; else unchanged."""
    from artifacts.ncnn.int8_layers import (
        TABLE_TYPES,
        can_be_int8,
        quantize_by_table,
        quantize_dynamic,
        store_float16,
    )

    for layer in file.layers:
        own = weights[layer.name]
        wanted = can_be_int8(layer, own) and layer.name not in params.layers_to_exclude
        if wanted and layer.type in TABLE_TYPES and scales and layer.name in scales.activations:
            rows = scales.weight_scales(layer.name)
            assert rows is not None, "read_table requires them for each activation"
            layer, own = quantize_by_table(layer, own, rows, scales.activations[layer.name])  # noqa: PLW2901
        elif wanted and layer.type in params.types_without_table:
            layer, own = quantize_dynamic(layer, own)  # noqa: PLW2901
        yield layer, store_float16(layer, own) if params.float_weights == "fp16" else own

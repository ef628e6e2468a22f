"""Quantise an ncnn model to int8, in the form of ncnn's own quantiser: by a table, or without one.

No package ships that quantiser (`ncnn2int8`); what it writes is written here. With a `table`, convolutions and
InnerProducts whose layer is in it become int8, each output channel with a scale of its own and what they read with the
calibrated one. LSTM, Gemm and Embed need none: what they read gets the scale of the moment. All else stays float.

So there are two ways. Without a table, on what pnnx wrote: linear layers are Gemms, nothing is calibrated, and nothing
that is louder than the calibration speech is clipped. With one, after `rewrite_ncnn_linears` and `calibrate_ncnn`: more
layers, finer weights, but what exceeds a threshold is cut. Which one loses fewer words is to be measured. Of the
embedded FastConformer's words, 2.63 % are wrong in float32 (clean, noise at 1 dB, soft endings: 1898 words), 2.79 % the
first way and 2.85 % the second, with `kl` and with `absmax` alike, and the files are as small. On an LSTM transducer of
83 million random weights the first was 21 dB nearer to float32.

Quantise before `tag_sherpa_ncnn` adds its layer: a real `ncnn2int8`, which may be given as `tool`, cannot keep it.
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


class Params(StepParams):
    """What becomes int8. `ncnn2int8` has no such choice, so with it these must be left alone."""

    types_without_table: tuple[Literal["Embed", "Gemm", "LSTM"], ...] = ("Embed", "Gemm", "LSTM")
    """The types of layers that become int8 without calibration."""
    layers_to_exclude: tuple[str, ...] = ()
    """Names of layers that stay float."""
    float_weights: Literal["fp16", "fp32"] = "fp16"
    """How weights are stored that stay float; `fp32`: as they are. Biases of convolutions and InnerProducts always are
    fp32."""


def run(
    out: Path, params: Params, *, model: Path, table: Path | None = None, tool: Path | None = None
) -> dict[str, float | int | str]:
    """Write the int8 form of `model` to `out` under its names, and load it once.

    `table` is what `calibrate_ncnn` wrote, of which the file is taken that is named as the model is, or one such file.
    `tool` is an executable `ncnn2int8`, which is then called: it gets the model's two files and the table.

    Metrics: int8 layers in all and by type, layers left float of the types that may be int8, bytes before and after.
    Raises StepError for files that are not an ncnn model's, a model that is int8 already, a table of another model, a
    name that no layer has, weights with NaN or infinity, and if no layer was quantised or ncnn does not load it.
    """
    from artifacts.ncnn.isolated import run_isolated
    from artifacts.ncnn.layer_fields import INT8_TERM, is_int8
    from artifacts.ncnn.named_tools import run_quantiser
    from artifacts.ncnn.network_writer import copy_others, network_bytes, write_network
    from artifacts.ncnn.param_file import read_param, require_layers
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.scale_table import find_table, read_table
    from artifacts.ncnn.weights_file import read_weights

    source, weights_path = find_net(model)
    file = read_param(source)
    if already := [layer.name for layer in file.layers if is_int8(layer)]:
        raise StepError(f"{source.name}: layer '{already[0]}' is int8 already", "give the model in fp32")
    require_layers(file, params.layers_to_exclude, f"{source.name}: layers_to_exclude")
    table_path = find_table(table, source.name) if table else None
    scales = read_table(table_path) if table_path else None
    if table_path and scales:
        require_layers(file, scales.layers, table_path.name)
    if tool is None:
        param = write_network(_quantized(file, read_weights(file, weights_path), scales, params), source, out)
    else:
        if params != Params():
            raise StepError(
                f"'{tool.name}' decides itself what becomes int8, and cannot be told",
                "leave the params out, or the tool",
            )
        param = run_quantiser(tool, (source, weights_path), table_path, out)
        copy_others(source, out)
    made = read_param(param)
    read_weights(made, param.with_suffix(".bin"))
    counts = {kind: sum(layer.type == kind and is_int8(layer) for layer in made.layers) for kind in INT8_TERM}
    if not any(counts.values()):
        raise StepError(
            f"{source.name}: 0 layers quantised: none that is not excluded is of the types "
            f"{', '.join(params.types_without_table)}{'' if scales else ', and there is no table'}",
            "give a table of its convolutions and InnerProducts (calibrate_ncnn), or exclude fewer layers",
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
    """Layer by layer: by the table if it has scales for what the layer reads, else without, else as it is."""
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
            assert rows is not None, "a table that was read has them for each activation"
            layer, own = quantize_by_table(layer, own, rows, scales.activations[layer.name])  # noqa: PLW2901
        elif wanted and layer.type in params.types_without_table:
            layer, own = quantize_dynamic(layer, own)  # noqa: PLW2901
        yield layer, store_float16(layer, own) if params.float_weights == "fp16" else own

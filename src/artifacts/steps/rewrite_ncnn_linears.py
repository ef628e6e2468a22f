"""Rewrite an ncnn model's linear layers from Gemm to InnerProduct, which calibration knows.

pnnx writes `nn.Linear` on more than one row as a Gemm: ncnn quantises that without calibration, with one scale for all
of a matrix. As an InnerProduct the layer has a scale for each output and one, from the table, for what it reads. The
numbers are the same ones, and so is what they compute up to the order of sums. Calibrate what comes out, then quantise
it by the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.ncnn.param_file import Layer
    from artifacts.ncnn.weights_file import LayerWeights

TOOLS = ("ncnn", "numpy")


class Params(StepParams):
    """What is rewritten."""

    layers_to_exclude: tuple[str, ...] = ()
    """Names of layers that stay a Gemm."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its names, and load it once.

    Metrics: layers rewritten, Gemms left, bytes before and after.
    Raises StepError for files that are not an ncnn model's, for a name in `layers_to_exclude` that no layer has, and if
    no layer was rewritten.
    """
    from artifacts.ncnn.isolated import run_isolated
    from artifacts.ncnn.linear_layers import as_inner_product, is_linear
    from artifacts.ncnn.network_writer import network_bytes, write_network
    from artifacts.ncnn.param_file import read_param, require_layers
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.weights_file import read_weights

    source, weights_path = find_net(model)
    file = read_param(source)
    require_layers(file, params.layers_to_exclude, f"{source.name}: layers_to_exclude")
    linear = {layer.name for layer in file.layers if is_linear(layer)} - set(params.layers_to_exclude)
    if not linear:
        raise StepError(
            f"{source.name}: 0 layers rewritten: none that is not excluded is a Gemm of one input and a matrix",
            "calibrate the model as it is, or exclude fewer layers",
        )
    weights = read_weights(file, weights_path)

    def rewritten() -> Iterator[tuple[Layer, LayerWeights]]:
        for layer in file.layers:
            own = weights[layer.name]
            yield as_inner_product(layer, own) if layer.name in linear else (layer, own)

    param = write_network(rewritten(), source, out)
    run_isolated(param, param.with_suffix(".bin"), [])
    return {
        "layers_rewritten": len(linear),
        "gemms_left": sum(layer.type == "Gemm" for layer in file.layers) - len(linear),
        "bytes_before": network_bytes(source),
        "bytes_after": network_bytes(param),
    }

"""Rewrite an ncnn network's linear layers from Gemm to InnerProduct, which ncnn can calibrate.

pnnx writes `nn.Linear` on a matrix as a Gemm, and on a vector as an InnerProduct. ncnn quantises a Gemm without
calibration, with one scale for its whole matrix. An InnerProduct has a scale for each output and one, from the table,
for its input. Both compute `x @ weight.T + bias` for each row of x, equal up to the order of sums. Their numbers are
equal too; only the bias is stored differently: with a tag in a Gemm, as plain float32 in an InnerProduct.

Calibrate the new network, then quantise it by the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.ncnn.param_file import Layer, Value
    from artifacts.ncnn.weights_file import LayerWeights, Weight

TOOLS = ("ncnn", "numpy")
HEADLINE = ("layers_rewritten", "gemms_left")

# Gemm params of a linear layer, with all values that are right.
_LINEAR: dict[int, tuple[Value, ...]] = {
    0: (1, 1.0),  # alpha
    1: (1, 1.0),  # beta
    2: (0,),  # A is not transposed
    3: (1,),  # B is transposed: its rows are outputs
    4: (0,),  # A is an input
    5: (1,),  # B is constant
    11: (0,),  # the usual shape of the output
    12: (0, 1),
    13: (0, 1),
    14: (0,),
    18: (0,),  # not quantised
}
_DEFAULTS: dict[int, Value] = {0: 1.0, 1: 1.0}
_NO_BIAS, _BIAS_OF_COLUMNS = -1, 4


class Params(StepParams):
    """Which layers are rewritten."""

    layers_to_exclude: tuple[str, ...] = ()
    """Names of layers that stay a Gemm."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the network to `out` under the same file names, and load it once with ncnn.

    Metrics: layers rewritten, Gemms left, bytes before and after.
    Raises StepError for files that are not an ncnn network, for a name in `layers_to_exclude` that no layer has, and if
    no layer was rewritten.
    """
    from artifacts.ncnn.param_file import find_net, read_param, require_layers
    from artifacts.ncnn.runtime import run_isolated
    from artifacts.ncnn.weights_file import network_bytes, read_weights, write_network

    source, weights_path = find_net(model)
    file = read_param(source)
    require_layers(file, params.layers_to_exclude, f"{source.name}: layers_to_exclude")
    linear = {layer.name for layer in file.layers if is_linear(layer)} - set(params.layers_to_exclude)
    if not linear:
        raise StepError(
            f"{source.name}: 0 layers rewritten: none that is not excluded is a Gemm of one input and a matrix",
            "calibrate the network as it is, or exclude fewer layers",
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


def is_linear(layer: Layer) -> bool:
    """Return whether a layer is a Gemm of one input, a constant matrix, and a constant bias for each output or none."""
    if layer.type != "Gemm" or len(layer.inputs) != 1:
        return False
    if any(layer.params.get(key, _DEFAULTS.get(key, 0)) not in allowed for key, allowed in _LINEAR.items()):
        return False
    return layer.integer(6) == 0 or layer.integer(10) in (_NO_BIAS, _BIAS_OF_COLUMNS)


def as_inner_product(layer: Layer, weights: LayerWeights) -> tuple[Layer, LayerWeights]:
    """Return the InnerProduct that computes the same as a Gemm for which `is_linear` is true, with the same numbers."""
    import numpy as np

    from artifacts.ncnn.param_file import Layer
    from artifacts.ncnn.weights_file import Weight

    matrix = weights["b"]
    outputs, size = matrix.values.shape[0], matrix.values.size
    params: dict[int, Value] = {0: outputs, 1: int("c" in weights), 2: size}
    found: dict[str, Weight] = {"weight": Weight("weight", matrix.values, tagged=True, padding=matrix.padding)}
    if "c" in weights:
        bias = np.ascontiguousarray(weights["c"].as_float32()).reshape(-1)
        found["bias"] = Weight("bias", bias, tagged=False)
    return Layer("InnerProduct", layer.name, layer.inputs, layer.outputs, params), found

"""Gemm layers that are a linear layer, and the InnerProduct that computes the same.

pnnx writes `nn.Linear` on a matrix as a Gemm, and on a vector as an InnerProduct. ncnn's calibrators know only the
latter. Both compute `x @ weight.T + bias` for each row of x; only where the bias is stored differs: behind a tag in a
Gemm, as plain float32 in an InnerProduct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from artifacts.ncnn.param_file import Layer
from artifacts.ncnn.weights_file import LayerWeights, Weight

if TYPE_CHECKING:
    from artifacts.ncnn.param_file import Value

_LINEAR: dict[int, tuple[Value, ...]] = {
    0: (1, 1.0),  # alpha
    1: (1, 1.0),  # beta
    2: (0,),  # A as it is
    3: (1,),  # B transposed: rows are outputs
    4: (0,),  # A an input
    5: (1,),  # B constant
    11: (0,),  # the output as usual
    12: (0, 1),
    13: (0, 1),
    14: (0,),
    18: (0,),  # not quantised
}
_DEFAULTS: dict[int, Value] = {0: 1.0, 1: 1.0}
_NO_BIAS, _BIAS_OF_COLUMNS = -1, 4


def is_linear(layer: Layer) -> bool:
    """Whether a layer is a Gemm of one input with a constant matrix and a constant bias for each output, or none."""
    if layer.type != "Gemm" or len(layer.inputs) != 1:
        return False
    if any(layer.params.get(key, _DEFAULTS.get(key, 0)) not in allowed for key, allowed in _LINEAR.items()):
        return False
    return layer.integer(6) == 0 or layer.integer(10) in (_NO_BIAS, _BIAS_OF_COLUMNS)


def as_inner_product(layer: Layer, weights: LayerWeights) -> tuple[Layer, LayerWeights]:
    """The InnerProduct that computes what a linear Gemm does, from the same numbers. `is_linear` must have said so."""
    matrix = weights["b"]
    outputs, size = matrix.values.shape[0], matrix.values.size
    params: dict[int, Value] = {0: outputs, 1: int("c" in weights), 2: size}
    found: dict[str, Weight] = {"weight": Weight("weight", matrix.values, tagged=True, padding=matrix.padding)}
    if "c" in weights:
        bias = np.ascontiguousarray(weights["c"].as_float32()).reshape(-1)
        found["bias"] = Weight("bias", bias, tagged=False)
    return Layer("InnerProduct", layer.name, layer.inputs, layer.outputs, params), found

"""Layers whose weights are int8, in the form that ncnn's own quantiser (`ncnn2int8`) gives them.

Two kinds. Convolution, ConvolutionDepthWise and InnerProduct turn what they read to int8 by one scale that was
calibrated; their weights have a scale for each output channel. LSTM, Gemm and Embed need no calibration: what they read
gets the scale of the moment (an Embed reads tokens), a row of an LSTM's matrices has a scale of its own, a Gemm's
constant matrix and an Embed's table one in all. ncnn has no int8 for one-dimensional convolutions and an LSTM's
projection; they stay as they are.

A convolution is not told the scale of the one that reads its output (`fuse_requantize`), which saves turning to float32
and back, and can round a number differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.ncnn.int8_values import LARGEST, WINOGRAD_LARGEST, quantize_rows, row_scales, to_float16
from artifacts.ncnn.layer_fields import INT8_TERM, is_int8
from artifacts.ncnn.weights_file import LayerWeights, Weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from artifacts.ncnn.param_file import Layer, Value

TABLE_TYPES = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
DYNAMIC_TYPES = ("Embed", "Gemm", "LSTM")

Quantized = tuple["Layer", dict[str, Weight]]


def can_be_int8(layer: Layer, weights: LayerWeights) -> bool:
    """Whether the layer has float weights of its own that ncnn can compute with as int8."""
    if layer.type not in INT8_TERM or is_int8(layer):
        return False
    return ("b" in weights and "a" not in weights) if layer.type == "Gemm" else bool(weights)


def weight_scales(layer: Layer, weights: LayerWeights) -> NDArray[np.float32]:
    """The scales of a layer of `TABLE_TYPES`: `[outputs]`, of a depthwise convolution `[groups]`.

    Raises StepError if a weight is not finite.
    """
    return row_scales(_channels(layer, weights), WINOGRAD_LARGEST if _is_winograd(layer) else LARGEST)


def quantize_by_table(
    layer: Layer, weights: LayerWeights, scales: NDArray[np.float32], activation_scale: float
) -> Quantized:
    """A layer of `TABLE_TYPES` with int8 weights by the table's `scales`, and the scale of what it reads.

    Raises StepError if the table has another number of scales than the layer has channels.
    """
    matrix = _channels(layer, weights)
    if len(scales) != len(matrix):
        raise StepError(
            f"layer '{layer.name}' ({layer.type}): the table has {len(scales)} scales, it has {len(matrix)} channels",
            "calibrate the model that is quantised",
        )
    values = quantize_rows(matrix, scales).reshape(weights["weight"].values.shape)
    found = {**weights, "weight": Weight("weight", values, tagged=True)}
    found |= _raw(weight_scales=scales, bottom_scale=np.array([activation_scale], np.float32))
    return _marked(layer, 1 if layer.type == "ConvolutionDepthWise" else 2), found


def quantize_dynamic(layer: Layer, weights: LayerWeights) -> Quantized:
    """A layer of `DYNAMIC_TYPES` with int8 weights. Raises StepError if a weight is not finite."""
    marked = _marked(layer, 2)
    if layer.type == "LSTM":
        scales = {name: row_scales(weights[name].as_float32()) for name in ("weight_xc", "weight_hc")}
        values = {name: quantize_rows(weights[name].as_float32(), each) for name, each in scales.items()}
        found = {**weights, **{name: Weight(name, each, tagged=True) for name, each in values.items()}}
        return marked, found | _raw(**{f"{name}_scales": each for name, each in scales.items()})
    name = "b" if layer.type == "Gemm" else "weight"
    matrix = weights[name].as_float32()
    if layer.type == "Gemm" and not layer.integer(3):
        matrix = np.ascontiguousarray(matrix.T)
        marked = replace(marked, params={**marked.params, 3: 1})
    scale = row_scales(matrix.reshape(1, -1))
    found = {**weights, name: Weight(name, quantize_rows(matrix, scale), tagged=True)}
    return marked, found | _raw(**{"b_scale" if name == "b" else "weight_scale": scale})


def store_float16(layer: Layer, weights: LayerWeights) -> dict[str, Weight]:
    """The layer's weights with those that are float32, and may be float16, as that.

    Raises StepError, with the layer, for a number that float16 does not have.
    """
    try:
        return {
            name: replace(weight, values=to_float16(weight.values), padding=b"")
            if weight.tagged and weight.values.dtype == np.float32
            else weight
            for name, weight in weights.items()
        }
    except StepError as error:
        raise StepError(f"layer '{layer.name}' ({layer.type}): {error.fact}", error.fix) from None


def _channels(layer: Layer, weights: LayerWeights) -> NDArray[np.float32]:
    """A row for each output channel; a depthwise convolution has one for each group."""
    matrix = weights["weight"].as_float32()
    return matrix.reshape(layer.integer(7, 1), -1) if layer.type == "ConvolutionDepthWise" else matrix


def _is_winograd(layer: Layer) -> bool:
    """A 3×3 convolution with stride and dilation 1: ncnn multiplies it in Winograd's domain, with 6-bit weights."""
    if layer.type != "Convolution":
        return False
    # Param 10 more is the same of the other axis, and what this one is unless it is there.
    wanted = {1: 3, 2: 1, 3: 1}
    sizes = {key: layer.integer(key, 0 if key == 1 else 1) for key in wanted}
    return sizes == wanted and all(layer.integer(key + 10, size) == size for key, size in wanted.items())


def _marked(layer: Layer, term: int) -> Layer:
    params: Mapping[int, Value] = {**layer.params, INT8_TERM[layer.type]: term}
    return replace(layer, params=params)


def _raw(**values: NDArray[Any]) -> dict[str, Weight]:
    return {name: Weight(name, each, tagged=False) for name, each in values.items()}

"""Quantise layers to int8, in the form of ncnn's own quantiser (`ncnn2int8`).

`q = round(w * scale)`, halves away from zero, within ±127. The scale is 127 / largest magnitude, or 31 / largest
magnitude where ncnn multiplies in a transformed domain that has room for six bits.

There are two kinds of layers. Convolution, ConvolutionDepthWise and InnerProduct quantise their input by one calibrated
scale, and their weights have a scale for each output channel. LSTM, Gemm and Embed need no calibration: ncnn scales
their input by its largest value at run time (an Embed reads tokens). Each row of an LSTM's matrices has a scale of its
own; a Gemm's constant matrix and an Embed's table have one. ncnn has no int8 for one-dimensional convolutions and for
an LSTM's projection, so they stay float.

ncnn2int8 also writes the scale of the next convolution into the one before it (`fuse_requantize`). This module does
not: it would save a conversion to float32 and back, and can round a number differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.ncnn.layer_fields import INT8_TERM, is_int8
from artifacts.ncnn.weights_file import LayerWeights, Weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from artifacts.ncnn.param_file import Layer, Value

TABLE_TYPES = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
DYNAMIC_TYPES = ("Embed", "Gemm", "LSTM")

LARGEST = 127
WINOGRAD_LARGEST = 31
FLOAT16_LARGEST = 65504.0

Quantized = tuple["Layer", dict[str, Weight]]


def can_be_int8(layer: Layer, weights: LayerWeights) -> bool:
    """Return whether the layer has float weights of its own that ncnn can use as int8."""
    if layer.type not in INT8_TERM or is_int8(layer):
        return False
    return ("b" in weights and "a" not in weights) if layer.type == "Gemm" else bool(weights)


def weight_scales(layer: Layer, weights: LayerWeights) -> NDArray[np.float32]:
    """Return the scales of a layer of `TABLE_TYPES`: `[outputs]`, for a depthwise convolution `[groups]`.

    Raises StepError if a weight is not finite.
    """
    return row_scales(_channels(layer, weights), WINOGRAD_LARGEST if _is_winograd(layer) else LARGEST)


def quantize_by_table(
    layer: Layer, weights: LayerWeights, scales: NDArray[np.float32], activation_scale: float
) -> Quantized:
    """Return a layer of `TABLE_TYPES` with int8 weights by the table's `scales`, and with the scale of its input.

    Raises StepError if the number of scales is not that of the layer's channels.
    """
    matrix = _channels(layer, weights)
    if len(scales) != len(matrix):
        raise StepError(
            f"layer '{layer.name}' ({layer.type}): the table has {len(scales)} scales, it has {len(matrix)} channels",
            "give the table of the same network",
        )
    values = quantize_rows(matrix, scales).reshape(weights["weight"].values.shape)
    found = {**weights, "weight": Weight("weight", values, tagged=True)}
    found |= _untagged(weight_scales=scales, bottom_scale=np.array([activation_scale], np.float32))
    return _marked(layer, 1 if layer.type == "ConvolutionDepthWise" else 2), found


def quantize_dynamic(layer: Layer, weights: LayerWeights) -> Quantized:
    """Return a layer of `DYNAMIC_TYPES` with int8 weights. Raises StepError if a weight is not finite."""
    marked = _marked(layer, 2)
    if layer.type == "LSTM":
        scales = {name: row_scales(weights[name].as_float32()) for name in ("weight_xc", "weight_hc")}
        values = {name: quantize_rows(weights[name].as_float32(), each) for name, each in scales.items()}
        found = {**weights, **{name: Weight(name, each, tagged=True) for name, each in values.items()}}
        return marked, found | _untagged(**{f"{name}_scales": each for name, each in scales.items()})
    name = "b" if layer.type == "Gemm" else "weight"
    matrix = weights[name].as_float32()
    if layer.type == "Gemm" and not layer.integer(3):
        matrix = np.ascontiguousarray(matrix.T)
        marked = replace(marked, params={**marked.params, 3: 1})
    scale = row_scales(matrix.reshape(1, -1))
    found = {**weights, name: Weight(name, quantize_rows(matrix, scale), tagged=True)}
    return marked, found | _untagged(**{"b_scale" if name == "b" else "weight_scale": scale})


def store_float16(layer: Layer, weights: LayerWeights) -> dict[str, Weight]:
    """Return the layer's weights, the float32 ones as float16 where the format has a tag for it.

    Raises StepError, with the layer, for a number that float16 cannot represent.
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


def row_scales(matrix: NDArray[np.float32], largest: int = LARGEST) -> NDArray[np.float32]:
    """Return scales `[R]` for a matrix `[R, C]` that map the largest magnitude of each row to `largest`.

    A row of zeros gets 1. Raises StepError if a weight is not finite.
    """
    found = np.abs(matrix).max(axis=1)
    if not np.isfinite(found).all():
        raise StepError("weights with NaN or infinity", "repair the checkpoint, then convert it again")
    scales = np.ones(len(found), np.float32)
    np.divide(np.float32(largest), found, out=scales, where=found > 0)
    return scales


def quantize_rows(matrix: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Quantise a matrix `[R, C]` to int8 by scales `[R]`, or by one scale `[1]`."""
    # The product is float32, as ncnn's; adding a half is exact in float64 alone.
    scaled = (matrix * scales[:, np.newaxis]).astype(np.float64)
    scaled += np.copysign(0.5, scaled)
    np.trunc(scaled, out=scaled)
    np.clip(scaled, -LARGEST, LARGEST, out=scaled)
    return scaled.astype(np.int8)


def to_float16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to the nearest float16, halves to even. Raises StepError beyond ±65504, and for NaN or infinity."""
    if not np.abs(values).max(initial=0.0) <= FLOAT16_LARGEST:
        raise StepError(
            f"a weight is {float(np.abs(values).max()):g}, float16 ends at {FLOAT16_LARGEST:g}",
            "keep the weights that are not quantised in fp32",
        )
    return values.astype(np.float16)


def _channels(layer: Layer, weights: LayerWeights) -> NDArray[np.float32]:
    """Return the weights with one row for each output channel; for a depthwise convolution, for each group."""
    matrix = weights["weight"].as_float32()
    return matrix.reshape(layer.integer(7, 1), -1) if layer.type == "ConvolutionDepthWise" else matrix


def _is_winograd(layer: Layer) -> bool:
    """Return whether ncnn uses Winograd's domain, with 6-bit weights: a 3×3 convolution with stride and dilation 1."""
    if layer.type != "Convolution":
        return False
    # Param 10 higher is the same size of the other axis, and by default equal to it.
    wanted = {1: 3, 2: 1, 3: 1}
    sizes = {key: layer.integer(key, 0 if key == 1 else 1) for key in wanted}
    return sizes == wanted and all(layer.integer(key + 10, size) == size for key, size in wanted.items())


def _marked(layer: Layer, term: int) -> Layer:
    params: Mapping[int, Value] = {**layer.params, INT8_TERM[layer.type]: term}
    return replace(layer, params=params)


def _untagged(**values: NDArray[Any]) -> dict[str, Weight]:
    return {name: Weight(name, each, tagged=False) for name, each in values.items()}

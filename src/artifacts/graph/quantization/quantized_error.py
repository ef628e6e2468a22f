"""How far a quantised MatMul strays from the float one, computed on frames of real speech.

Activations become unsigned 8-bit integers with one scale and zero point a tensor, weights signed ones with a scale for
each column and no zero point; sums are exact, and the result is float. That is what ONNX Runtime computes for a
QuantizeLinear in front of a MatMulInteger, and for QuantizeLinear and DequantizeLinear around a MatMul.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import parser
from onnxruntime import InferenceSession, SessionOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE_BYTES = 1 << 20
"""A tile of a weight, what is made of it and the frames are together in the second-level cache."""

LEVELS = 255
"""The largest uint8."""


def weight_limit(reduce_range: bool) -> int:
    """The largest magnitude of an int8 weight. With ±64, two products with a uint8 fit the 16 bits in which CPUs
    without VNNI, and wasm, add them up: 2 x 255 x 64 < 2^15."""
    return 64 if reduce_range else 127


@dataclass(frozen=True)
class Trial:
    """Sample frames divided by `scale [K]` and quantised: integers less their zero point `[R, K]`, and their scale."""

    scale: NDArray[np.float32]
    rows: NDArray[np.float32]
    row_scale: np.float32


@dataclass(frozen=True)
class Span:
    """The range that uint8 is to represent of an activation divided by `scale [K]`."""

    scale: NDArray[np.float32]
    low: float
    high: float


def activation_scale(low: float, high: float) -> tuple[np.float32, int]:
    """Scale and zero point with which uint8 spans `low` to `high`, and zero, which is represented exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / LEVELS)
    if scale == 0:
        return np.float32(1), 0
    return scale, int(np.clip(np.rint(-low / float(scale)), 0, LEVELS))


def column_scales(peaks: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """A scale for each column from its largest magnitude; 1 for a column of zeros, or so near to it that it is lost."""
    scales = (peaks / np.float32(limit)).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1
    return scales


def quantized_rows(rows: NDArray[np.float32], low: float, high: float) -> tuple[NDArray[np.float32], np.float32]:
    """Integers less their zero point as float32 `[R, K]`, and the scale; what is out of the range is moved in."""
    scale, zero_point = activation_scale(low, high)
    numbers = np.rint(rows / scale)
    np.clip(numbers, -zero_point, LEVELS - zero_point, out=numbers)
    return numbers, scale


def relative_errors(
    rows: NDArray[np.float32],
    weight: NDArray[np.float32],
    trials: Sequence[Trial],
    limit: int,
) -> list[float]:
    """||Q(X / s) Q(s W) - X W||² / ||X W||² of the rows `[R, K]` and the weight `[K, N]`, for each trial.

    The weight is looked at some columns at a time: what is made of them fits the processor's cache.
    """
    room = max(1, min(weight.shape[1], TILE_BYTES // (4 * len(weight))))
    strayed, energy = [0.0] * len(trials), 0.0
    scaled = np.empty(len(weight) * room, np.float32)
    for start in range(0, weight.shape[1], room):
        tile = np.ascontiguousarray(weight[:, start : start + room])
        integers = scaled[: tile.size].reshape(tile.shape)
        reference = product(rows, tile)
        energy += _energy(reference)
        for index, trial in enumerate(trials):
            np.multiply(tile, trial.scale[:, np.newaxis], out=integers)
            scales = column_scales(np.maximum(integers.max(axis=0), -integers.min(axis=0)), limit)
            np.divide(integers, scales, out=integers)
            np.rint(integers, out=integers)
            found = product(trial.rows, integers)
            found *= trial.row_scale * scales
            found -= reference
            strayed[index] += _energy(found)
    return [one / energy if energy else 0.0 for one in strayed]


def expected_errors(
    rows: NDArray[np.float32], weight: NDArray[np.float32], spans: Sequence[Span], limit: int
) -> list[float]:
    """Return what `relative_errors` gives on average, if rounding errors are uniform and independent of all else.

    A number that is not zero is then off by its step squared over 12 (Bennett 1948, "Spectra of Quantized Signals"),
    and one beyond the ends of its range by its distance from them. On the embedded encoder that is within 8 % of what
    is measured. Choices use this number: one activation that rounds the other way, as on another processor, changes the
    measured error by 1e-4 to 1e-3, and this one by 1e-6.
    """
    energy = _energy(product(rows, weight))
    return [_expected(rows, weight, span, limit) / energy if energy else 0.0 for span in spans]


def _expected(rows: NDArray[np.float32], weight: NDArray[np.float32], span: Span, limit: int) -> float:
    scaled_rows, scaled_weight = rows / span.scale, weight * span.scale[:, np.newaxis]
    step = float(activation_scale(span.low, span.high)[0])
    columns = column_scales(np.maximum(scaled_weight.max(axis=0), -scaled_weight.min(axis=0)), limit)
    columns[~scaled_weight.any(axis=0)] = 0  # zeros are represented exactly, in rows and columns
    by_channel = np.square(scaled_weight, dtype=np.float64).sum(axis=1)
    from_rows = float(np.count_nonzero(rows, axis=0) @ by_channel) * step**2 / 12
    from_weight = _energy(scaled_rows) * _energy(columns) / 12
    beyond = scaled_rows - np.clip(scaled_rows, min(span.low, 0), max(span.high, 0))
    clipped = _energy(product(beyond, scaled_weight)) if beyond.any() else 0.0
    return from_rows + from_weight + clipped


def product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """`a [R, K] x b [K, N]`, bit for bit the same with any number of threads, unlike numpy's."""
    result: NDArray[np.float32] = _product_session().run(None, {"a": a, "b": b})[0]
    return result


def _energy(numbers: NDArray[Any]) -> float:
    return float(np.square(numbers, dtype=np.float64).sum())


@cache
def _product_session() -> InferenceSession:
    model = """<ir_version: 8, opset_import: ["": 17]>
    product (float[R, K] a, float[K, N] b) => (float[R, N] y) { y = MatMul(a, b) }"""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return InferenceSession(parser.parse_model(model).SerializeToString(), options, providers=["CPUExecutionProvider"])

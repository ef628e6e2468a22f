"""MatMuls with the statistics of their activation, and the error that int8 makes of each on frames of real speech.

Activations become uint8 with one scale and zero point a tensor. Weights become int8 with a scale for each column and no
zero point. Sums are exact, and the result is float. That is what ONNX Runtime computes for a QuantizeLinear in front of
a MatMulInteger, and for QuantizeLinear and DequantizeLinear around a MatMul.

Choices are made from few bits of a measurement. The last bits of an activation depend on the processor: the largest
magnitude of a channel differs by 1e-7 to 2e-7 on average between two kinds, and by 3e-6 at most. A scale of four bits
takes the same value on both, unless the number is that close to the boundary between two values: for one channel in
500,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import parser
from onnxruntime import InferenceSession, SessionOptions

from artifacts.errors import StepError
from artifacts.graph.quantization.activation_statistics import ActivationStatistics, StatisticsReader
from artifacts.graph.quantization.weight_matmuls import WeightMatMul
from artifacts.graph.tensor_content import read_floats, stored_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A tile of a weight, what is computed from it and the frames fit the second-level cache together.
TILE_BYTES = 1 << 20

LARGEST_UINT8 = 255


def read_calibrated(
    matmuls: Sequence[WeightMatMul], statistics: StatisticsReader, folder: Path
) -> tuple[ActivationStatistics, list[NDArray[np.float32]]]:
    """Return the statistics of the activation that these MatMuls share, and their weights `[K, N]` from `folder`.

    Raises StepError for a value that was not measured or had another number of channels, and for a weight with NaN or
    infinity.
    """
    measured = statistics.read(matmuls[0].activation)
    weights = []
    for matmul in matmuls:
        channels, columns = matmul.sizes
        if len(measured.low) != channels:
            raise StepError(
                f"statistics of the value '{measured.value}': {len(measured.low)} channels, "
                f"'{matmul.node.name}' multiplies {channels}",
                "calibrate on this model",
            )
        weights.append(read_floats(stored_content(matmul.weight, folder)).reshape(-1, columns))
        if not np.isfinite(weights[-1]).all():
            raise StepError(
                f"weight '{matmul.weight.name}': has NaN or infinity", "train or export the checkpoint again"
            )
    return measured, weights


def weight_limit(reduce_range: bool) -> int:
    """Return the largest magnitude of an int8 weight: 127, or 64 with a reduced range.

    With ±64, two products with a uint8 fit the 16 bits in which CPUs without VNNI, and wasm, add them:
    2 x 255 x 64 < 2^15.
    """
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
    """Return the scale and zero point with which uint8 spans `low` to `high`, extended to contain 0. 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / LARGEST_UINT8)
    if scale == 0:
        return np.float32(1), 0
    return scale, int(np.clip(np.rint(-low / float(scale)), 0, LARGEST_UINT8))


def column_scales(peaks: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """Return a scale for each column from its largest magnitude; 1 for a column of zeros, or of subnormal scale."""
    scales = (peaks / np.float32(limit)).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1
    return scales


def quantized_rows(rows: NDArray[np.float32], low: float, high: float) -> tuple[NDArray[np.float32], np.float32]:
    """Return integers less their zero point as float32 `[R, K]`, and their scale. Numbers out of range are clipped."""
    scale, zero_point = activation_scale(low, high)
    numbers = np.rint(rows / scale)
    np.clip(numbers, -zero_point, LARGEST_UINT8 - zero_point, out=numbers)
    return numbers, scale


def relative_errors(
    rows: NDArray[np.float32],
    weight: NDArray[np.float32],
    trials: Sequence[Trial],
    limit: int,
) -> list[float]:
    """Return ||Q(X / s) Q(s W) - X W||² / ||X W||² of the rows `[R, K]` and the weight `[K, N]`, for each trial.

    The weight is processed in tiles of columns that fit the processor's cache.
    """
    width = max(1, min(weight.shape[1], TILE_BYTES // (4 * len(weight))))
    squared_errors, energy = [0.0] * len(trials), 0.0
    buffer = np.empty(len(weight) * width, np.float32)
    for start in range(0, weight.shape[1], width):
        tile = np.ascontiguousarray(weight[:, start : start + width])
        integers = buffer[: tile.size].reshape(tile.shape)
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
            squared_errors[index] += _energy(found)
    return [one / energy if energy else 0.0 for one in squared_errors]


def expected_errors(
    rows: NDArray[np.float32], weight: NDArray[np.float32], spans: Sequence[Span], limit: int
) -> list[float]:
    """Return the mean of `relative_errors` if rounding errors are uniform and independent of all else.

    A number that is not zero then has an error of its scale squared over 12 (Bennett 1948, "Spectra of Quantized
    Signals"), and a clipped one its distance from the range. On the embedded encoder that is within 8 % of the measured
    error. Choices use this number. One activation that rounds the other way, as on another processor, changes the
    measured error by 1e-4 to 1e-3, and this one by 1e-6.
    """
    energy = _energy(product(rows, weight))
    return [_expected(rows, weight, span, limit) / energy if energy else 0.0 for span in spans]


def _expected(rows: NDArray[np.float32], weight: NDArray[np.float32], span: Span, limit: int) -> float:
    scaled_rows, scaled_weight = rows / span.scale, weight * span.scale[:, np.newaxis]
    row_scale = float(activation_scale(span.low, span.high)[0])
    columns = column_scales(np.maximum(scaled_weight.max(axis=0), -scaled_weight.min(axis=0)), limit)
    columns[~scaled_weight.any(axis=0)] = 0  # zeros are represented exactly, in rows and columns
    by_channel = np.square(scaled_weight, dtype=np.float64).sum(axis=1)
    from_rows = float(np.count_nonzero(rows, axis=0) @ by_channel) * row_scale**2 / 12
    from_weight = _energy(scaled_rows) * _energy(columns) / 12
    beyond = scaled_rows - np.clip(scaled_rows, min(span.low, 0), max(span.high, 0))
    clipped = _energy(product(beyond, scaled_weight)) if beyond.any() else 0.0
    return from_rows + from_weight + clipped


def product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `a [R, K] x b [K, N]`, bit for bit the same with any number of threads, unlike numpy's."""
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


def rounded(numbers: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Return the nearest numbers of `bits` significant bits (ties to even), in the shape of `numbers`."""
    mantissas, exponents = np.frexp(numbers)
    nearest: NDArray[np.float64] = np.ldexp(np.rint(mantissas * 2.0**bits), exponents - bits)
    return nearest


def rounded_outwards(number: float, bits: int) -> float:
    """Return the nearest number of `bits` significant bits that is at least as far from zero."""
    mantissa, exponent = np.frexp(abs(number))
    return float(np.copysign(np.ldexp(np.ceil(mantissa * 2.0**bits), exponent - bits), number))

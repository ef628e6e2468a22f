"""The computed error is the one that ONNX Runtime makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import parser

from artifacts.graph.quantization import calibrated_matmuls
from artifacts.graph.quantization.calibrated_matmuls import (
    Span,
    Trial,
    activation_scale,
    column_scales,
    expected_errors,
    product,
    quantized_rows,
    relative_errors,
    weight_limit,
)

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def rows() -> Array:
    return np.random.default_rng(1).gumbel(size=(40, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def weight() -> Array:
    return np.random.default_rng(2).standard_normal((96, 130), dtype=np.float32)


def plain(rows: Array, low: float, high: float) -> Trial:
    return Trial(np.ones(rows.shape[1], np.float32), *quantized_rows(rows, low, high))


def test_two_products_fit_16_bits_where_the_range_is_reduced() -> None:
    assert 2 * 255 * weight_limit(True) < 2**15 <= 2 * 255 * weight_limit(False)


@pytest.mark.parametrize(
    ("low", "high", "zero_point"), [(-1.0, 1.1, 121), (0.5, 2.0, 0), (-3.0, -1.0, 255), (-0.2, 5.0, 10), (0.0, 0.0, 0)]
)
def test_the_range_of_an_activation_holds_zero_exactly(low: float, high: float, zero_point: int) -> None:
    scale, found = activation_scale(low, high)
    assert scale.dtype == np.float32
    assert found == zero_point
    assert scale > 0
    ends = (np.array([0, 255]) - found) * scale
    np.testing.assert_allclose(ends, [min(low, 0), max(high, 0)], atol=0.501 * scale if high > low else 255)


def test_every_column_has_a_positive_scale() -> None:
    scales = column_scales(np.array([0, 1e-44, 64, 6.4], np.float32), 64)
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1])


def test_onnxruntime_makes_the_error_that_was_computed(rows: Array, weight: Array) -> None:
    low, high = float(rows.min()) * 0.9, float(rows.max()) * 0.9
    (expected,) = relative_errors(rows, weight, [plain(rows, low, high)], 64)
    scale, zero_point = activation_scale(low, high)
    scales = column_scales(np.abs(weight).max(axis=0), 64)
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[R, K] x, int8[K, N] w, float s, uint8 z, float[N] t) => (float[R, N] y) {
            q = QuantizeLinear(x, s, z)
            i = MatMulInteger(q, w, z)
            f = Cast<to: int = 1>(i)
            u = Mul(s, t)
            y = Mul(f, u)
        }"""
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": rows, "w": np.rint(weight / scales).astype(np.int8), "s": np.array(scale), "t": scales}
    (found,) = session.run(None, feeds | {"z": np.array(zero_point, np.uint8)})
    reference = rows.astype(np.float64) @ weight
    assert 1e-5 < expected < 1e-2
    assert np.square(found - reference).sum() / np.square(reference).sum() == pytest.approx(expected, rel=1e-4)


def test_the_size_of_a_tile_changes_nothing(rows: Array, weight: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [plain(rows, -2, 5), Trial(np.full(96, 2, np.float32), *quantized_rows(rows / 2, -1, 2.5))]
    whole = relative_errors(rows, weight, trials, 64)
    monkeypatch.setattr(calibrated_matmuls, "TILE_BYTES", 7 * 4 * 96)
    assert relative_errors(rows, weight, trials, 64) == pytest.approx(whole, rel=1e-6)
    assert whole[0] == pytest.approx(whole[1], rel=1e-6), "a scale of all channels alike changes nothing"


@pytest.mark.parametrize("limit", [64, 127])
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_the_error_that_is_expected_is_the_one_that_is_measured(
    rows: Array, weight: Array, part: float, limit: int
) -> None:
    """With the whole range, and with half of it, where more comes from what is cut off than from rounding."""
    scale = np.random.default_rng(4).uniform(0.5, 2, 96).astype(np.float32)
    ends = part * float((rows / scale).min()), part * float((rows / scale).max())
    (measured,) = relative_errors(rows, weight, [Trial(scale, *quantized_rows(rows / scale, *ends))], limit)
    # 40 x 96 roundings, 130 sums each: the spread of the measured one is some 2 %
    assert expected_errors(rows, weight, [Span(scale, *ends)], limit) == [pytest.approx(measured, rel=0.08)]


def test_noise_in_the_last_bits_hardly_moves_the_expected_error(rows: Array, weight: Array) -> None:
    scale, ends = np.ones(96, np.float32), (float(rows.min()), float(rows.max()))
    expected = expected_errors(rows, weight, [Span(scale, *ends)], 64)
    for seed in range(5):
        noise = 1 + np.random.default_rng(seed).uniform(-1e-6, 1e-6, rows.shape)
        noisy = (rows * noise).astype(np.float32)
        noisy_ends = (float(noisy.min()), float(noisy.max()))
        assert expected_errors(noisy, weight, [Span(scale, *noisy_ends)], 64) == pytest.approx(expected, rel=5e-6)


def test_zeros_of_rows_and_of_columns_have_no_error(rows: Array, weight: Array) -> None:
    sparse, pruned = np.maximum(rows, 0), weight.copy()
    pruned[:, ::3] = 0
    sparse[:, 5:9] = 0
    ends = (0.0, float(sparse.max()))
    (measured,) = relative_errors(sparse, pruned, [plain(sparse, *ends)], 64)
    span = Span(np.ones(96, np.float32), *ends)
    assert expected_errors(sparse, pruned, [span], 64) == [pytest.approx(measured, rel=0.08)]


def test_nothing_is_expected_of_a_product_of_zeros(rows: Array) -> None:
    span = Span(np.ones(96, np.float32), -1, 1)
    assert expected_errors(rows, np.zeros((96, 3), np.float32), [span, span], 64) == [0, 0]


def test_fewer_bits_have_a_larger_error(rows: Array, weight: Array) -> None:
    trial = [plain(rows, float(rows.min()), float(rows.max()))]
    errors = [relative_errors(rows, weight, trial, limit)[0] for limit in (127, 64, 7)]
    assert errors == sorted(errors)
    assert errors[2] > 10 * errors[0]


def test_a_product_of_zeros_has_no_error(rows: Array) -> None:
    assert relative_errors(rows, np.zeros((96, 3), np.float32), [plain(rows, -1, 1)], 64) == [0.0]


def test_the_product_is_that_of_matrices(rows: Array, weight: Array) -> None:
    np.testing.assert_allclose(product(rows, weight), rows @ weight, rtol=1e-4, atol=1e-4)

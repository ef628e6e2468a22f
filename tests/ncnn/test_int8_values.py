from __future__ import annotations

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.int8_values import quantize_rows, row_scales, to_float16


def test_the_largest_magnitude_of_each_row_becomes_127() -> None:
    matrix = np.array([[0.5, -2, 1], [0, 0, 0], [1e-6, 0, -1e-6]], np.float32)
    scales = row_scales(matrix)
    assert scales.dtype == np.float32
    assert scales.tolist() == [63.5, 1, float(np.float32(127) / np.float32(1e-6))]
    assert quantize_rows(matrix, scales).tolist() == [[32, -127, 64], [0, 0, 0], [127, 0, -127]]


def test_six_bits_end_at_31() -> None:
    matrix = np.array([[0.5, -2, 1]], np.float32)
    assert row_scales(matrix, 31).tolist() == [15.5]
    assert quantize_rows(matrix, row_scales(matrix, 31)).tolist() == [[8, -31, 16]]


def test_halves_are_rounded_away_from_zero_and_what_is_nearly_a_half_is_not() -> None:
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))  # in float32, half more would be 1
    matrix = np.array([[0.5, -0.5, 1.5, -2.5, below, -below]], np.float32)
    assert quantize_rows(matrix, np.ones(1, np.float32)).tolist() == [[1, -1, 2, -3, 0, 0]]


def test_what_exceeds_a_given_scale_is_cut_at_127_on_both_sides() -> None:
    matrix = np.array([[200, -200, 127.4, -127.6]], np.float32)
    assert quantize_rows(matrix, np.ones(1, np.float32)).tolist() == [[127, -127, 127, -127]]


def test_one_scale_may_be_that_of_all_rows() -> None:
    matrix = np.array([[1, 2], [3, 4]], np.float32)
    scale = row_scales(matrix.reshape(1, -1))
    assert quantize_rows(matrix, scale).tolist() == [[32, 64], [95, 127]]


def test_weights_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(StepError, match="weights with NaN or infinity"):
            row_scales(np.array([[1, bad]], np.float32))
        with pytest.raises(StepError, match="float16 ends at 65504"):
            to_float16(np.array([1, bad], np.float32))


def test_float16_is_the_nearest_and_has_an_end() -> None:
    values = np.array([1 + 2**-11, 1 + 3 * 2**-11, 1e-7, 65504], np.float32)
    assert to_float16(values).astype(np.float64).tolist() == [1, 1 + 2**-9, pytest.approx(1e-7, rel=0.2), 65504]
    with pytest.raises(StepError, match="a weight is 70000, float16 ends at 65504"):
        to_float16(np.array([0, -70000], np.float32))

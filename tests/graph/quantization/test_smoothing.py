"""Scales are those of the paper, and the search finds the α that leaves the smallest error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from artifacts.graph.quantization.activation_statistics import ActivationStatistics
from artifacts.graph.quantization.smoothing import alpha_grid, choose_smoothing, smoothing_scale

Array = np.ndarray[Any, Any]


def statistics(rows: Array) -> ActivationStatistics:
    low, high = rows.min(axis=0), rows.max(axis=0)
    return ActivationStatistics("v", len(rows), low, high, np.abs(rows).max(axis=0), float(np.abs(rows).max()), rows)


@pytest.fixture(scope="module")
def loud() -> ActivationStatistics:
    """Rows of which one channel is 100 times as loud as the rest."""
    rows = np.random.default_rng(3).standard_normal((64, 48), dtype=np.float32)
    rows[:, 5] *= 100
    return statistics(rows)


@pytest.fixture(scope="module")
def weights() -> list[Array]:
    return [np.random.default_rng(seed).standard_normal((48, 40), dtype=np.float32) for seed in (4, 5)]


@pytest.mark.parametrize(
    ("step", "grid"),
    [(0.25, [0, 0.25, 0.5, 0.75, 1]), (0.3, [0, 0.3, 0.6, 0.9, 1]), (1, [0, 1]), (0.1, [i / 10 for i in range(11)])],
)
def test_the_grid_has_both_ends(step: float, grid: list[float]) -> None:
    assert alpha_grid(step) == grid


@pytest.mark.parametrize("alpha", [0, 0.3, 0.5, 1])
def test_the_scale_is_that_of_the_paper(alpha: float) -> None:
    activation, weight = np.array([0.5, 3, 200], np.float32), np.array([2, 0.25, 0.01], np.float32)
    found = smoothing_scale(activation, weight, alpha)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, activation**alpha / weight ** (1 - alpha), rtol=1 / 15)  # it has four bits


def test_silent_channels_and_rows_of_zeros_are_left_alone() -> None:
    activation, weight = np.array([0, 4, 0, 4], np.float32), np.array([2, 0, 0, 4], np.float32)
    np.testing.assert_array_equal(smoothing_scale(activation, weight, 0.5), [1, 1, 1, 1])
    np.testing.assert_array_equal(smoothing_scale(activation, weight, 1.0), [1, 1, 1, 4])


def test_scales_are_finite_whatever_the_numbers() -> None:
    extremes = np.array([1e-45, 3e38, 1e-45, 3e38], np.float32)
    for alpha in (0, 0.5, 1):
        scale = smoothing_scale(extremes, extremes[[0, 1, 3, 2]], alpha)
        assert (scale >= 2.0**-16).all()
        assert (scale <= 2.0**16).all()


def test_smoothing_takes_most_of_the_error_of_a_loud_channel(loud: ActivationStatistics, weights: list[Array]) -> None:
    found = choose_smoothing(loud, loud.abs_max, weights, alpha_grid(0.1), 64, may_leave=True)
    assert found.alpha is not None
    assert found.error < 0.1 * found.error_before


def test_the_search_takes_one_that_is_as_good_as_the_best_of_single_alphas(
    loud: ActivationStatistics, weights: list[Array]
) -> None:
    grid = alpha_grid(0.1)
    single = {alpha: choose_smoothing(loud, loud.abs_max, weights, [alpha], 64, may_leave=False) for alpha in grid}
    searched = choose_smoothing(loud, loud.abs_max, weights, grid, 64, may_leave=True)
    assert searched.alpha is not None
    assert searched.error == pytest.approx(single[searched.alpha].error, rel=1e-6)
    np.testing.assert_array_equal(searched.scale, single[searched.alpha].scale)
    # what is expected is the lowest, and within 8 % of what is measured: 1.08 / 0.92
    assert searched.error < 1.18 * min(one.error for one in single.values())
    assert len({one.error for one in single.values()}) == len(grid)


def test_another_processors_last_bits_change_no_choice(loud: ActivationStatistics, weights: list[Array]) -> None:
    before = choose_smoothing(loud, loud.abs_max, weights, alpha_grid(0.1), 64, may_leave=True)
    assert before.alpha is not None
    for seed in range(20):
        noise = np.random.default_rng(seed).uniform(-1e-6, 1e-6, loud.rows.shape)
        other = statistics((loud.rows * (1 + noise)).astype(np.float32))
        found = choose_smoothing(other, other.abs_max, weights, alpha_grid(0.1), 64, may_leave=True)
        assert found.alpha == before.alpha
        np.testing.assert_array_equal(found.scale, before.scale)


def test_the_errors_of_all_consumers_are_summed(loud: ActivationStatistics, weights: list[Array]) -> None:
    both, *alone = (
        choose_smoothing(loud, loud.abs_max, group, [1.0], 64, may_leave=False).error  # its scale is X's alone
        for group in (weights, weights[:1], weights[1:])
    )
    assert both == pytest.approx(sum(alone), rel=1e-9)


def test_of_equal_errors_the_first_is_taken_and_no_smoothing_before_all() -> None:
    rows = statistics(np.full((4, 8), 2, np.float32))
    weight = np.full((8, 8), 4, np.float32)
    for may_leave, alpha in ((True, None), (False, 0.0)):
        found = choose_smoothing(rows, rows.abs_max, [weight], [0.0, 0.5, 1.0], 64, may_leave=may_leave)
        assert found.alpha == alpha
        assert (found.scale == (1 if may_leave else 0.25)).all()

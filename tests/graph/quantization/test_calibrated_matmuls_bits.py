"""Numbers of few bits take the same value whatever the last bits of a measurement were."""

from __future__ import annotations

import numpy as np
import pytest

from artifacts.graph.quantization.calibrated_matmuls import rounded, rounded_outwards


@pytest.mark.parametrize(
    ("number", "expected"), [(1.0, 1.0), (1.06, 1.0), (1.07, 1.125), (1.0625, 1.0), (1.1875, 1.25), (0.3, 0.3125)]
)
def test_four_bits_are_eight_values_an_octave(number: float, expected: float) -> None:
    for power in (-30.0, 0.0, 12.0):
        assert rounded(np.array([number * 2**power, -number * 2**power]), 4).tolist() == [
            expected * 2**power, -expected * 2**power,
        ]  # fmt: skip


def test_zero_stays_zero() -> None:
    assert rounded(np.zeros(2), 4).tolist() == [0, 0]
    assert rounded_outwards(0.0, 7) == 0


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_outwards_is_never_nearer_to_zero_and_within_one_step(bits: int) -> None:
    for number in np.random.default_rng(1).standard_normal(500) * 10:
        found = rounded_outwards(float(number), bits)
        assert 1 <= found / number <= 1 + 2.0 ** (1 - bits)
        assert found == rounded(np.array([found]), bits)[0], "it has this many bits"


def test_a_number_moves_only_if_noise_carries_it_over_a_boundary() -> None:
    """Boundaries are 1/16 to 1/8 of a number apart, so noise of 1e-6 carries one number in 70,000 over one."""
    rng = np.random.default_rng(2)
    numbers = np.exp(rng.uniform(-8, 8, 2_000_000))
    noisy = numbers * (1 + rng.uniform(-1e-6, 1e-6, numbers.shape))
    moved = np.mean(rounded(numbers, 4) != rounded(noisy, 4))
    # E|noise| = 5e-7; an octave has 8 boundaries: 5e-7 * 8 / ln 2 = 5.8e-6 of the numbers, 11.5 in 2,000,000
    assert 0 < moved < 3e-5

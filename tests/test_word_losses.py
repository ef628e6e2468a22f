"""A bound on words is a one-sided test: stricter with less scatter, and red by chance as seldom as its level says."""

from __future__ import annotations

import numpy as np
import pytest

from word_losses import LEVEL, Loss, exceeding, loss


def test_a_loss_within_the_bound_is_never_red() -> None:
    assert not Loss(0.3, 0.0, 8).exceeds(0.3)
    assert not Loss(0.3, 5.0, 8).exceeds(0.3)


def test_a_significant_loss_stays_significant_with_less_scatter_and_more_recordings() -> None:
    scatters = [0.0, 0.1, 0.149, 0.151, 0.3, 1.0]
    shown = [Loss(0, scatter, 60).smallest_shown(0.3) for scatter in scatters]
    assert shown == sorted(shown)
    assert shown[0] == 0.3
    assert Loss(0.301, 0.0, 60).exceeds(0.3)
    fewer = [Loss(0, 0.1, recordings).smallest_shown(0.3) for recordings in (400, 60, 16, 8, 3)]
    assert fewer == sorted(fewer)


@pytest.mark.parametrize("recordings", [8, 200])
def test_at_the_bound_one_run_in_a_hundred_is_red_however_many_slices_there_are(recordings: int) -> None:
    """What a recording of minutes loses is a sum of many differences; of a sentence it is mostly 0."""
    rng = np.random.default_rng(4)
    red = 0
    for _ in range(2000):
        slices = {}
        for name in "abcde":
            more = rng.choice([-6, -1, 0, 1, 6], p=[0.02, 0.1, 0.76, 0.1, 0.02], size=(recordings, 1600 // recordings))
            slices[name] = loss(more.sum(axis=1).tolist(), [0] * recordings, words=4000)
        red += exceeding(slices, 0.0) != []
    # 20 are expected at LEVEL; more than 38 come once in 10,000 times
    assert red <= 2000 * LEVEL + 4 * (2000 * LEVEL) ** 0.5


@pytest.mark.parametrize("lost", [[3, 0, 0, 1], [0, 0, 0, 0]])
def test_a_loss_is_the_points_that_are_more_and_their_standard_error(lost: list[int]) -> None:
    found = loss([5 + more for more in lost], [5] * 4, words=200)
    assert found.points == pytest.approx(100 * sum(lost) / 200)
    assert found.scatter == pytest.approx(100 * np.std(lost, ddof=1) * 2 / 200)
    assert found.recordings == 4


def test_a_loss_of_three_standard_errors_beyond_the_bound_is_red_alone_and_not_among_ten() -> None:
    one = Loss(0.3 + 3 * 0.1, 0.1, 1000)
    assert exceeding({"a": one}, 0.3) == ["a"]
    ten = {"a": one} | dict.fromkeys("bcdefghij", Loss(0, 0.1, 1000))
    assert exceeding(ten, 0.3) == []
    assert exceeding(ten, 0.3, but_for="bcdefghij") == ["a"]

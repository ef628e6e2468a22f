from __future__ import annotations

import numpy as np
import pytest

from artifacts.asr.drift import DriftTable
from artifacts.errors import StepError


def row(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_the_figures_of_two_utterances() -> None:
    table = DriftTable()
    for slice_name, ours, theirs in (("a", row(1, 2), row(1, 2)), ("b", row(0, 1), row(1, 0))):
        table.begin(slice_name)
        table.add("x", ours, theirs)
        table.end()
    assert table.total["x"].record() == {
        "max_abs": 1.0, "mean_abs": 0.5, "cosine_min": 0.0, "values": 4, "nonfinite_values": 0
    }  # fmt: skip
    assert table.slices["a"]["x"].record()["cosine_min"] == 1.0
    assert table.slices["b"]["x"].record()["max_abs"] == 1.0


def test_a_bad_utterance_does_not_hide_behind_many_good_ones() -> None:
    table = DriftTable()
    for index in range(100):
        table.begin("a")
        table.add("x", row(3, 4) if index else row(4, -3), row(3, 4))
        table.end()
    assert table.total["x"].cosine_min == 0.0


def test_the_parts_of_one_utterance_make_one_cosine() -> None:
    table = DriftTable()
    table.begin("a")
    table.add("x", row(1, 0), row(1, 0))
    table.add("x", row(0, 0), row(0, 1))
    table.end()
    assert table.total["x"].cosine_min == pytest.approx(1 / np.sqrt(2))


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    table = DriftTable()
    table.begin("a")
    table.add("x", row(1, np.nan, np.inf, 2), row(1, 2, 3, 1))
    table.end()
    record = table.total["x"].record()
    assert record["nonfinite_values"] == 2
    assert record["max_abs"] == 1.0
    assert record["values"] == 2


def test_an_output_that_died_has_no_cosine_left() -> None:
    table = DriftTable()
    table.begin("a")
    table.add("x", row(0, 0), row(1, 1))
    table.end()
    assert table.total["x"].cosine_min == 0.0


def test_a_reference_that_is_not_finite_is_refused() -> None:
    table = DriftTable()
    table.begin("a")
    with pytest.raises(StepError, match="output 'x' of the reference is not finite"):
        table.add("x", row(1), row(np.nan))

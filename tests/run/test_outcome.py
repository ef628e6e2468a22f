"""An outcome is a value: equal where all is equal, and nothing changes it."""

from __future__ import annotations

import dataclasses

import pytest

from artifacts.run.outcome import Outcome
from artifacts.store.journal import Status


def test_an_outcome_is_frozen_and_compares_by_value() -> None:
    outcome = Outcome("a:b", Status.BUILT, 3, metrics={"wer_percent": 1.5})
    assert outcome == Outcome("a:b", Status.BUILT, 3, metrics={"wer_percent": 1.5})
    assert outcome != Outcome("a:b", Status.RESTORED, 3, metrics={"wer_percent": 1.5})
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.bytes = 4  # type: ignore[misc]

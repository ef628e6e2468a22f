"""Params of the steps that calibrate a network for ncnn int8."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from artifacts.params import StepParams


class CalibrationParams(StepParams):
    """The speech, and how scales are chosen."""

    activations: Literal["kl", "absmax"] = "kl"
    """`kl`: a threshold below the largest magnitude, if that loses less. `absmax`: the largest magnitude itself."""
    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """Slices of the corpus to use; all of them by default."""
    min_seconds: float = Field(60.0, ge=0)
    """Least speech in the corpus: less would give the ranges of a few words."""

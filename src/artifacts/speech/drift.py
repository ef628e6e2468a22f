"""How far a model's outputs drift from a reference's, gathered over the utterances of a corpus.

Maximum, mean and cosine answer different questions: one wild value, a general coarseness, another direction. A cosine
is taken per utterance and the worst one kept: an encoder that collapses on long recordings alone must not hide behind
the many short ones.

A value of the model that is not finite has no difference from the reference's, and JSON knows neither NaN nor inf: it
counts as off by the largest float32, and its utterance's cosine as 0. So no figure of a broken model looks good.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError

NONFINITE_ABS = float(np.finfo(np.float32).max)
"""How far off a value counts that is not finite. Sums of it stay finite, as sums of the largest float64 would not."""


@dataclass
class Drift:
    """Sums over the values of one output: `add` arrays of equal shape, `close` after each utterance."""

    values: int = 0
    nonfinite_values: int = 0
    """Values of the model that are not finite, each off by `NONFINITE_ABS`. They count in `values` as well."""
    max_abs: float = 0.0
    sum_abs: float = 0.0
    cosine_min: float = 1.0
    _is_finite: bool = True
    """Whether the utterance's values have all been finite so far."""
    _dot: float = 0.0
    _square: float = 0.0
    _reference_square: float = 0.0

    def add(self, ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> None:
        finite = np.isfinite(ours)
        if not finite.all():
            nonfinite = int((~finite).sum())
            self.values += nonfinite
            self.nonfinite_values += nonfinite
            self.max_abs = max(self.max_abs, NONFINITE_ABS)
            self.sum_abs += nonfinite * NONFINITE_ABS
            self._is_finite = False
            ours, theirs = ours[finite], theirs[finite]
        if not ours.size:
            return
        difference = np.abs(ours - theirs)
        self.values += ours.size
        self.max_abs = max(self.max_abs, float(difference.max()))
        # Sums, not dot products: those go through BLAS, whose threads decide the last bits.
        self.sum_abs += float(difference.sum())
        self._dot += float((ours * theirs).sum())
        self._square += float((ours * ours).sum())
        self._reference_square += float((theirs * theirs).sum())

    def close(self) -> None:
        """End an utterance and let its cosine count; 0 where one is zero throughout, or where values are not finite."""
        if not self._is_finite:
            self.cosine_min = min(self.cosine_min, 0.0)
        elif self._square or self._reference_square:
            norms = math.sqrt(self._square * self._reference_square)
            self.cosine_min = min(self.cosine_min, self._dot / norms if norms else 0.0)
        self._dot = self._square = self._reference_square = 0.0
        self._is_finite = True

    def record(self) -> dict[str, float]:
        """The figures, in digits that are worth reading."""
        mean_abs = self.sum_abs / self.values if self.values else 0.0
        return {
            "max_abs": float(f"{self.max_abs:.6g}"),
            "mean_abs": float(f"{mean_abs:.6g}"),
            "cosine_min": round(self.cosine_min, 9),
            "values": self.values,
            "nonfinite_values": self.nonfinite_values,
        }


class DriftTable:
    """The drift of each output, in total and for each slice."""

    def __init__(self) -> None:
        self.total: dict[str, Drift] = defaultdict(Drift)
        self.slices: dict[str, dict[str, Drift]] = defaultdict(lambda: defaultdict(Drift))
        self._slice = ""

    def begin(self, slice_name: str) -> None:
        """Start an utterance of this slice."""
        self._slice = slice_name

    def add(self, output: str, ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
        """Take in one output of the model and of the reference, of equal shape.

        Raises StepError if the reference is not finite: nothing can be measured against it.
        """
        if not np.isfinite(theirs).all():
            raise StepError(f"output '{output}' of the reference is not finite", "give a sound reference")
        for drift in (self.total[output], self.slices[self._slice][output]):
            drift.add(ours.astype(np.float64), theirs.astype(np.float64))

    def end(self) -> None:
        """End the utterance."""
        for drift in (*self.total.values(), *self.slices[self._slice].values()):
            drift.close()

"""How far a model's outputs drift from a reference's, gathered over the utterances of a corpus.

Maximum, mean and cosine answer different questions: one wild value, a general coarseness, another direction. A cosine
is taken per utterance and the worst one kept: an encoder that collapses on long recordings alone must not hide behind
the many short ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError


@dataclass
class Drift:
    """Sums over the values of one output: `add` arrays of equal shape, `close` after each utterance."""

    values: int = 0
    nonfinite_values: int = 0
    """Values of the model that are not finite. They are counted here and take no part in the differences."""
    max_abs: float = 0.0
    sum_abs: float = 0.0
    cosine_min: float = 1.0
    _dot: float = 0.0
    _square: float = 0.0
    _reference_square: float = 0.0

    def add(self, ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> None:
        finite = np.isfinite(ours)
        if not finite.all():
            self.nonfinite_values += int((~finite).sum())
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
        """End an utterance and let its cosine count; 0 where one of both is zero throughout."""
        if self._square or self._reference_square:
            norms = math.sqrt(self._square * self._reference_square)
            self.cosine_min = min(self.cosine_min, self._dot / norms if norms else 0.0)
        self._dot = self._square = self._reference_square = 0.0

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

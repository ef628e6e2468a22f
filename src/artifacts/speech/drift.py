"""Measure how far a model's outputs differ from a reference's, over the utterances of a corpus.

Maximum, mean and cosine answer different questions: one extreme value, low precision everywhere, another direction.
The cosine is that of the worst utterance: an encoder that collapses only on long recordings must not hide behind many
short ones.

A value of the model that is not finite has no difference from the reference's, and JSON has neither NaN nor infinity.
It counts as a difference of the largest float32, and the cosine of its utterance as 0. So no metric of a broken model
looks good.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.runtime.sessions import open_session, run_session
from artifacts.speech.decoding import DecodingSettings
from artifacts.speech.transducer import FusedTransducer

# The difference of a value that is not finite. Sums of it stay finite; sums of the largest float64 would not.
NONFINITE_ABS = float(np.finfo(np.float32).max)


@dataclass
class Drift:
    """Sums over the values of one output: `add` arrays of equal shape, and `close` after each utterance."""

    values: int = 0
    nonfinite_values: int = 0
    """Values of the model that are not finite. They count in `values` too, each with `NONFINITE_ABS`."""
    max_abs: float = 0.0
    sum_abs: float = 0.0
    cosine_min: float = 1.0
    _is_finite: bool = True
    """Whether all values of the utterance have been finite so far."""
    _dot: float = 0.0
    _square: float = 0.0
    _reference_square: float = 0.0

    def add(self, ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> None:
        """Add one array of the model and the reference's."""
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
        """End an utterance: its cosine counts, as 0 if one side is zero throughout or a value is not finite."""
        if not self._is_finite:
            self.cosine_min = min(self.cosine_min, 0.0)
        elif self._square or self._reference_square:
            norms = math.sqrt(self._square * self._reference_square)
            self.cosine_min = min(self.cosine_min, self._dot / norms if norms else 0.0)
        self._dot = self._square = self._reference_square = 0.0
        self._is_finite = True

    def record(self) -> dict[str, float]:
        """Return the metrics, rounded to significant digits."""
        mean_abs = self.sum_abs / self.values if self.values else 0.0
        return {
            "max_abs": float(f"{self.max_abs:.6g}"),
            "mean_abs": float(f"{mean_abs:.6g}"),
            "cosine_min": round(self.cosine_min, 9),
            "values": self.values,
            "nonfinite_values": self.nonfinite_values,
        }


class DriftTable:
    """Drift of each output, in total and for each slice."""

    def __init__(self) -> None:
        self.total: dict[str, Drift] = defaultdict(Drift)
        self.slices: dict[str, dict[str, Drift]] = defaultdict(lambda: defaultdict(Drift))
        self._slice = ""

    def begin(self, slice_name: str) -> None:
        """Begin an utterance of this slice."""
        self._slice = slice_name

    def add(self, output: str, ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
        """Add one output of the model and the reference's, of equal shape.

        Raises StepError if the reference's is not finite, because nothing can be compared with it.
        """
        if not np.isfinite(theirs).all():
            raise StepError(f"output '{output}' of the reference is not finite", "give another reference")
        for drift in (self.total[output], self.slices[self._slice][output]):
            drift.add(ours.astype(np.float64), theirs.astype(np.float64))

    def end(self) -> None:
        """End the utterance."""
        for drift in (*self.total.values(), *self.slices[self._slice].values()):
            drift.close()


class LockstepTransducer(FusedTransducer):
    """The reference `decoder_joint`, for `greedy.decode`; `model` runs the same steps, and `table` gets the drift.

    Both run along the reference's own greedy path, so frames, tokens and states are those of real speech. Each step
    starts from the reference's states, so differences do not add up over steps.
    """

    def __init__(
        self, model: Path, reference: Path, threads: int, decoding: DecodingSettings, table: DriftTable
    ) -> None:
        super().__init__(reference, threads, decoding.blank_id)
        self._model_name = model.name
        self._model = open_session(model, threads)
        self._blank_id = decoding.blank_id
        self._table = table
        self.steps = 0
        # Steps where the model's best token, or its best duration if there are any, is not the reference's.
        self.steps_with_other_choice = 0

    def logits(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        feeds = self.feeds(frame)
        theirs = run_session(self.session, self.name, self.OUTPUTS, feeds)
        ours = run_session(self._model, self._model_name, self.OUTPUTS, feeds)
        for name, our_values, their_values in zip(self.OUTPUTS, ours, theirs, strict=True):
            if our_values.shape != their_values.shape:
                raise StepError(
                    f"{self._model_name}: gives '{name}' {list(our_values.shape)}, "
                    f"the reference {list(their_values.shape)}",
                    "compare two builds of one model",
                )
            self._table.add(name, our_values, their_values)
        scores: npt.NDArray[np.float32] = theirs[0].reshape(-1)
        self.steps += 1
        self.steps_with_other_choice += self._choice(ours[0].reshape(-1)) != self._choice(scores)
        self._next_states = theirs[1:]
        return scores

    def _choice(self, scores: npt.NDArray[np.float32]) -> tuple[int, int]:
        """Return the best token and the best duration; 0 for a joint without durations."""
        tokens = self._blank_id + 1
        return int(scores[:tokens].argmax()), int(scores[tokens:].argmax()) if len(scores) > tokens else 0

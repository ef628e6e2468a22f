"""What an artifact loses in words against another one, and how much of that may be chance.

One place of a recording that tips over decides up to a sentence, in either direction: a loss is known to within its
scatter, the standard error of the recordings' differences.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Loss:
    """Points of word error rate more than the other one, and its standard error."""

    points: float
    scatter: float

    def is_within(self, bound: float) -> bool:
        """Whether the loss may be within the bound: for sure if the scatter is small beside it, else by chance."""
        return self.points <= (bound if 2 * self.scatter <= bound else bound + 2 * self.scatter)


def loss(errors: Sequence[int], before: Sequence[int], words: int) -> Loss:
    """The loss from the wrong words of each recording, of which there are `words` in all."""
    more = [now - then for now, then in zip(errors, before, strict=True)]
    return Loss(100 * sum(more) / words, 100 * (len(more) * statistics.variance(more)) ** 0.5 / words)

"""What an artifact loses in words against another one, and how much of that may be chance.

One frame of a recording that tips over decides up to a sentence, in either direction, and it tips over on one processor
and not on another. So a loss is known to within its scatter, the standard error of the recordings' differences, and a
bound on it is a one-sided test: it is red only if a loss as small as the bound would show this much at most once in a
hundred times.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.01
"""How often a test may be red although the loss is as small as its bound, all the losses that it looks at together."""


@dataclass(frozen=True)
class Loss:
    """Points of word error rate more than the other one, and its standard error."""

    points: float
    scatter: float

    def exceeds(self, bound: float, *, among: int = 1) -> bool:
        """Whether the loss is beyond the bound at LEVEL, when it is one of `among` that are looked at (Bonferroni)."""
        return self.points > self.smallest_shown(bound, among=among)

    def smallest_shown(self, bound: float, *, among: int = 1) -> float:
        """The points from which on a loss with this scatter is told from one that is as small as the bound."""
        return bound + statistics.NormalDist().inv_cdf(1 - LEVEL / among) * self.scatter


def loss(errors: Sequence[int], before: Sequence[int], words: int) -> Loss:
    """The loss from the wrong words of each recording, of which there are `words` in all."""
    more = [now - then for now, then in zip(errors, before, strict=True)]
    return Loss(100 * sum(more) / words, 100 * (len(more) * statistics.variance(more)) ** 0.5 / words)


def exceeding(losses: Mapping[str, Loss], bound: float, *, but_for: Collection[str] = ()) -> list[str]:
    """The names of the losses that are beyond the bound, at LEVEL for all of them together."""
    tested = {name: one for name, one in losses.items() if name not in but_for}
    return [name for name, one in tested.items() if one.exceeds(bound, among=len(tested))]

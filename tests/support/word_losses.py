"""What an artifact loses in words against another one, and how much of that may be chance.

One frame that is decoded differently can change a whole sentence, in either direction, and processors differ in such
frames. So a loss is known to within its scatter, the standard error of the recordings' differences, and a bound on it
is a one-sided test (Student's t): it is red only if a loss as small as the bound would show this much at most once in a
hundred times.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from artifacts.speech.corpus import Utterance
from artifacts.speech.word_error_rate import count_errors

# What a measurement of words says of each utterance: the lines of its `hypotheses.jsonl`.
Rows = list[dict[str, Any]]

TOTAL = "total"

# How often a test may be red although the loss is as small as its bound, all the losses that it looks at together.
LEVEL = 0.01


@dataclass(frozen=True)
class Loss:
    """Points of word error rate more than the other one, its standard error, and of how many recordings."""

    points: float
    scatter: float
    recordings: int

    def exceeds(self, bound: float, *, among: int = 1) -> bool:
        """Whether the loss is beyond the bound at LEVEL, when it is one of `among` that are looked at (Bonferroni)."""
        return self.points > self.smallest_shown(bound, among=among)

    def smallest_shown(self, bound: float, *, among: int = 1) -> float:
        """Return the smallest loss with this scatter that is significantly above the bound."""
        return bound + float(student.ppf(1 - LEVEL / among, self.recordings - 1)) * self.scatter


def read_rows(folder: Path) -> Rows:
    """The rows of what a step wrote that measures words."""
    return [json.loads(line) for line in (folder / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()]


def count_rows(utterances: Sequence[Utterance], texts: Sequence[str]) -> Rows:
    """The rows of what somebody else transcribed."""
    return [
        {"id": one.id, "slice": one.slice, "text": one.text, "hypothesis": text}
        | asdict(count_errors(one.text, text, ignore_case_and_punctuation=False))
        for one, text in zip(utterances, texts, strict=True)
    ]


def wer_percent(rows: Rows, name: str) -> float:
    """The word error rate of a slice, or of all rows for TOTAL."""
    return 100 * sum(_errors(rows, name)) / _words(rows, name)


def losses(rows: Rows, before: Rows) -> dict[str, Loss]:
    """What was lost on each slice, and on all of the speech (TOTAL): the same utterances, measured twice."""
    assert [row["id"] for row in rows] == [row["id"] for row in before]
    slices = [*dict.fromkeys(row["slice"] for row in before), TOTAL]
    return {name: loss(_errors(rows, name), _errors(before, name), _words(before, name)) for name in slices}


def _errors(rows: Rows, name: str) -> list[int]:
    kinds = ("substitutions", "deletions", "insertions")
    return [sum(int(row[kind]) for kind in kinds) for row in rows if name in (row["slice"], TOTAL)]


def _words(rows: Rows, name: str) -> int:
    return sum(len(row["text"].split()) for row in rows if name in (row["slice"], TOTAL))


def loss(errors: Sequence[int], before: Sequence[int], words: int) -> Loss:
    """The loss from the wrong words of two recordings or more, of which there are `words` in all."""
    more = [now - then for now, then in zip(errors, before, strict=True)]
    scatter = 100 * (len(more) * statistics.variance(more)) ** 0.5 / words
    return Loss(100 * sum(more) / words, scatter, len(more))


def exceeding(losses: Mapping[str, Loss], bound: float, *, but_for: Collection[str] = ()) -> list[str]:
    """The names of the losses that are beyond the bound, at LEVEL for all of them together."""
    tested = {name: one for name, one in losses.items() if name not in but_for}
    return [name for name, one in tested.items() if one.exceeds(bound, among=len(tested))]

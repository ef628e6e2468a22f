"""Outcomes of a build's targets, and the interface of whoever is told of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from artifacts.store.journal import Status


@dataclass(frozen=True)
class Outcome:
    """Outcome of one target: status, size, seconds, peak memory and metrics.

    `absent` are the optional sources, in words, for whose lack the target was skipped. `measured_on` is the processor,
    for steps that measure. `trusts` are its sources with `trust: true`. `unconfined`
    says which of `files` and `network` the sandbox could not keep from the step.
    """

    target: str
    status: Status
    bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    measured_on: str = ""
    absent: tuple[str, ...] = ()
    trusts: tuple[str, ...] = ()
    unconfined: tuple[str, ...] = ()


class Listener(Protocol):
    """Receives the events of a build, from several threads."""

    def started(self, target: str, why: list[str]) -> None:
        """Handle the start of a step; `why` has the reasons."""

    def progressed(self, target: str, message: str, done: int | None, total: int | None) -> None:
        """Handle a step's report of progress."""

    def ended(self, outcome: Outcome) -> None:
        """Handle the outcome of a target."""

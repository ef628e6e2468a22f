"""Params of the steps that transcribe a corpus and count word errors."""

from __future__ import annotations

from pydantic import Field

from artifacts.params import StepParams


class TranscriptionParams(StepParams):
    """The part of the corpus, how words are compared, and the number of threads."""

    slices: tuple[str, ...] | None = Field(None, min_length=1)
    """Slices of the corpus to measure; all of them by default."""
    ignore_case_and_punctuation: bool = False
    """Compare words without case and punctuation, for checkpoints that write both and texts that have neither."""
    threads: int = Field(1, gt=0, le=64)
    """Threads within an operator. They may decide the last bits of a sum, so they are part of the measurement."""

"""Join the recordings of a corpus into long ones, in many random orders, so that small losses become measurable.

One moment of a long recording may decide a whole sentence. So half an hour of speech cannot tell an artifact that loses
a tenth of a point from one that loses half a point. In another order the same sentences have other neighbours and other
positions, and their errors differ.

Writes a corpus: the clips, and `utterances.jsonl` with a slice `long_<seconds>s` for each length. In a slice, every
order contains once each recording that consists of one clip.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.speech.corpus import Utterance

TOOLS = ("soundfile", "numpy")
HEADLINE = ("utterances", "hours")


class Params(StepParams):
    """Lengths of the recordings, and the number of orders for each length."""

    seconds: tuple[Annotated[int, Field(ge=1, le=3600)], ...] = Field((60, 240), min_length=1)
    """Approximate lengths; one slice for each."""
    orders: int = Field(12, ge=1, le=1000)
    """Number of orders in which the clips are joined, for each length."""
    gap_seconds: float = Field(0.4, ge=0, le=10)
    """Silence between two clips."""

    @field_validator("seconds")
    @classmethod
    def _lengths_differ(cls, seconds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seconds)) < len(seconds):
            raise ValueError("a length is given twice")
        return seconds


def run(out: Path, params: Params, *, corpus: Path) -> dict[str, float | int | str]:
    """Join the recordings of the folder `corpus` that consist of one clip.

    Metrics: utterances, clips, and hours of joined speech. Raises StepError if the recordings together are shorter than
    one joined recording, and for an invalid corpus.
    """
    from artifacts.speech.corpus import MANIFEST_NAME, SAMPLE_RATE_HZ, read_corpus

    speech = read_corpus(corpus)
    # Use the true lengths: the rounding of manifests would add up over dozens of clips.
    singles = [
        utterance.model_copy(update={"duration": len(speech.waveform(utterance)) / SAMPLE_RATE_HZ})
        for utterance in speech.utterances
        if len(utterance.clips) == 1
    ]
    lasting = sum(single.duration + params.gap_seconds for single in singles)
    if lasting < max(params.seconds):
        raise StepError(
            f"{corpus.name}: its {len(singles)} recordings of one clip last {lasting:.0f} s together, "
            f"less than {max(params.seconds)} s",
            "give a corpus with more of them, or join fewer seconds",
        )
    joined = [
        _join(f"long_{seconds}s", number, share, params.gap_seconds)
        for seconds in params.seconds
        for number, share in enumerate(_shares(singles, seconds, params))
    ]
    clips = sorted({single.clips[0] for single in singles})
    for clip in clips:
        (out / clip).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corpus / clip, out / clip)
    lines = "".join(json.dumps(each.model_dump(), ensure_ascii=False) + "\n" for each in joined)
    (out / MANIFEST_NAME).write_text(lines, encoding="utf-8")
    hours = sum(each.duration for each in joined) / 3600
    return {"utterances": len(joined), "clips": len(clips), "hours": round(hours, 3)}


def _shares(singles: Sequence[Utterance], seconds: int, params: Params) -> Iterator[list[Utterance]]:
    """Yield, order by order, the recordings to join into one. In an order, the joined ones have about equal lengths."""
    for order in range(params.orders):
        shuffled = random.Random(f"{seconds}/{order}").sample(singles, len(singles))
        ends = [0.0]
        for single in shuffled:
            ends.append(ends[-1] + single.duration + params.gap_seconds)
        count = round(ends[-1] / seconds)
        shares: list[list[Utterance]] = [[] for _ in range(count)]
        for single, (start, end) in zip(shuffled, pairwise(ends), strict=True):
            shares[int(count * (start + end) / 2 / ends[-1])].append(single)
        yield from filter(None, shares)


def _join(name: str, number: int, share: Sequence[Utterance], gap_seconds: float) -> Utterance:
    return share[0].model_copy(
        update={
            "id": f"{name}-{number:04d}",
            "slice": name,
            "audio_filepath": [single.clips[0] for single in share],
            "gap_seconds": gap_seconds,
            "duration": round(sum(single.duration for single in share) + gap_seconds * (len(share) - 1), 7),
            "text": " ".join(single.text for single in share),
        }
    )

"""Recordings to calibrate on: the utterances of a corpus, and long windows joined from them where it has none.

Activations range further on long recordings than on short ones, so that a quantiser that has seen only short ones
clips what comes later. Windows are joined as published calibration sessions were: with 0.4 s of silence between clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from artifacts.speech.corpus import SAMPLE_RATE_HZ, Corpus, Utterance

GAP_SECONDS = 0.4


@dataclass(frozen=True)
class Recording:
    """One utterance, or several that are heard one after another."""

    utterances: tuple[Utterance, ...]

    @property
    def name(self) -> str:
        """For messages: the id of the utterance, or of the first and the last one."""
        first, last = self.utterances[0].id, self.utterances[-1].id
        return f"utterance '{first}'" if first == last else f"utterances '{first}' to '{last}'"

    @property
    def seconds(self) -> float:
        """How long it lasts, as the corpus says."""
        return sum(one.duration for one in self.utterances) + GAP_SECONDS * (len(self.utterances) - 1)

    def waveform(self, corpus: Corpus) -> npt.NDArray[np.float32]:
        """Float32 `[N]`, mono, 16 kHz. Raises StepError for clips that are not as they must be."""
        gap = np.zeros(round(GAP_SECONDS * SAMPLE_RATE_HZ), np.float32)
        parts = [part for one in self.utterances for part in (gap, corpus.waveform(one))]
        return np.concatenate(parts[1:])


def recordings(utterances: Sequence[Utterance], long_seconds: float | None, most_windows: int) -> list[Recording]:
    """Each utterance, in order; behind them, if none lasts `long_seconds`, windows of about that length.

    A window is a run of utterances, ended by the one with which it lasts `long_seconds`. What is left at the end is a
    window if there is no other. At most `most_windows` are kept, evenly spread over the corpus. None means no windows.
    """
    alone = [Recording((one,)) for one in utterances]
    if long_seconds is None or any(one.seconds >= long_seconds for one in alone):
        return alone
    windows: list[Recording] = []
    run: list[Utterance] = []
    for one in utterances:
        run.append(one)
        if Recording(tuple(run)).seconds >= long_seconds:
            windows.append(Recording(tuple(run)))
            run = []
    if not windows and len(run) > 1:
        windows = [Recording(tuple(run))]
    count = min(most_windows, len(windows))
    return alone + [windows[index * len(windows) // count] for index in range(count)]


def shares(heard: Sequence[Recording], count: int) -> list[int]:
    """Share `count` out over recordings by their lengths, in whole numbers: the sum is `count`."""
    ends = [0.0, *accumulate(recording.seconds for recording in heard)]
    return [round(count * end / ends[-1]) - round(count * start / ends[-1]) for start, end in pairwise(ends)]


class SpeechDigest:
    """A sha256 of waveforms in their order: two passes over the same speech give the same."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, waveform: npt.NDArray[np.float32]) -> None:
        """Take the next waveform `[N]`, with its length."""
        self._digest.update(len(waveform).to_bytes(8, "little"))
        self._digest.update(waveform.astype("<f4", copy=False).tobytes())

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()

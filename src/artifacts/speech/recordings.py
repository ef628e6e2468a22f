"""Speech for calibration: the utterances of a corpus, long windows joined from them, and two passes over the corpus.

Activations have larger ranges on long recordings than on short ones. A quantiser that has seen only short ones would
clip long ones, so long windows are added where the corpus has none. They are joined as published calibration sessions
were: with 0.4 s of silence between clips.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.speech.corpus import SAMPLE_RATE_HZ, Corpus, Utterance, read_corpus
from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_speech

GAP_SECONDS = 0.4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """One utterance, or several joined in their order."""

    utterances: tuple[Utterance, ...]

    @property
    def name(self) -> str:
        """Return a name for messages: the id of the utterance, or the first and the last id."""
        first, last = self.utterances[0].id, self.utterances[-1].id
        return f"utterance '{first}'" if first == last else f"utterances '{first}' to '{last}'"

    @property
    def seconds(self) -> float:
        """Return the duration by the manifest of the corpus."""
        return sum(one.duration for one in self.utterances) + GAP_SECONDS * (len(self.utterances) - 1)

    def waveform(self, corpus: Corpus) -> npt.NDArray[np.float32]:
        """Read the clips: float32 `[N]`, mono, 16 kHz. Raises StepError as `Corpus.waveform` does."""
        gap = np.zeros(round(GAP_SECONDS * SAMPLE_RATE_HZ), np.float32)
        parts = [part for one in self.utterances for part in (gap, corpus.waveform(one))]
        return np.concatenate(parts[1:])


def recordings(utterances: Sequence[Utterance], long_seconds: float | None, most_windows: int) -> list[Recording]:
    """Return each utterance in order, then windows of about `long_seconds` if no utterance is as long.

    A window is a run of utterances that ends with the one that makes it last `long_seconds`. The utterances that are
    left at the end are a window if there is no other. At most `most_windows` are kept, evenly spread over the corpus.
    None means no windows.
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


def shares(chosen: Sequence[Recording], count: int) -> list[int]:
    """Divide `count` among recordings in proportion to their lengths, in whole numbers that add up to `count`."""
    ends = [0.0, *accumulate(recording.seconds for recording in chosen)]
    return [round(count * end / ends[-1]) - round(count * start / ends[-1]) for start, end in pairwise(ends)]


def read_calibration_corpus(folder: Path, slices: Sequence[str] | None, min_seconds: float) -> Corpus:
    """Read a corpus. Raises StepError for less than `min_seconds` of speech, and as `read_corpus` does."""
    speech = read_corpus(folder, slices)
    seconds = sum(one.duration for one in speech.utterances)
    if seconds < min_seconds:
        raise StepError(
            f"{folder.name}: contains {seconds:.1f} s of speech, needs {min_seconds:g} s",
            "give a corpus with more speech, or more of its slices",
        )
    return speech


def transcribe_twice(
    speech: Corpus, count_tokens: Callable[[npt.NDArray[np.float32]], int], begin_second_pass: Callable[[], None]
) -> dict[str, float | int | str]:
    """Run two passes over a corpus: `count_tokens` transcribes each waveform, float32 `[N]` at 16 kHz.

    Returns metrics: utterances, their seconds, the tokens of one pass, and a digest of the waveforms. Raises StepError,
    with the utterance, for an error of `count_tokens`, and if a clip changed between the passes.
    """
    digests = [SpeechDigest(), SpeechDigest()]
    tokens = [0, 0]
    utterances = len(speech.utterances)
    for second in range(2):
        if second:
            begin_second_pass()
        for done, utterance in enumerate(speech.utterances, start=1 + second * utterances):
            waveform = speech.waveform(utterance)
            digests[second].add(waveform)
            try:
                with bounded_memory(bytes_for_speech(utterance.duration), "the networks"):
                    tokens[second] += count_tokens(waveform)
            except StepError as error:
                raise StepError(f"{speech.folder.name}: '{utterance.id}': {error.fact}", error.fix) from None
            log.info("calibrating", extra={"done": done, "total": 2 * utterances})
    first_digest, second_digest = (digest.hexdigest() for digest in digests)
    if first_digest != second_digest:
        raise StepError(
            f"{speech.folder.name}: the clips changed between the passes", "do not change the corpus during calibration"
        )
    return {
        "utterances": utterances,
        "seconds": round(sum(one.duration for one in speech.utterances), 3),
        "tokens": tokens[0],
        "speech_sha256": first_digest,
    }


class SpeechDigest:
    """SHA-256 of waveforms in their order: equal for two passes over the same speech."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, waveform: npt.NDArray[np.float32]) -> None:
        """Add the next waveform `[N]`, with its length."""
        self._digest.update(len(waveform).to_bytes(8, "little"))
        self._digest.update(waveform.astype("<f4", copy=False).tobytes())

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return self._digest.hexdigest()

"""Read a corpus: speech with its transcripts, in a folder.

The folder contains `utterances.jsonl` and the clips that it names. A line has NeMo's manifest keys plus `id`, `slice`
and `gap_seconds`; other keys are ignored. `audio_filepath` is one clip or a list of clips, relative to the folder. A
list is joined in its order with `gap_seconds` of silence between the clips, so that long recordings need not be stored
twice. `duration` is the length of the joined waveform, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
import numpy.typing as npt
import soundfile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from artifacts.errors import StepError
from artifacts.untrusted.read_input import parse_json
from artifacts.validation_errors import first_mistake

MANIFEST_NAME = "utterances.jsonl"
SAMPLE_RATE_HZ = 16_000
# Manifests round their durations; a clip that was cut short differs by more than this.
DURATION_TOLERANCE_SECONDS = 0.1

# Four hours. A recording is read as a whole, so the longest one takes 0.9 GB of memory.
MAX_SECONDS = 14_400.0
# Samples of a loud float clip may exceed 1. Much larger samples would have infinite energies.
LARGEST_SAMPLE = 1000.0
MAX_LINE_CHARACTERS = 16 << 20
# The name of all slices together, in tables.
TOTAL = "all"

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Utterance(BaseModel):
    """One line of `utterances.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    id: _Text
    slice: _Text
    audio_filepath: _Text | Annotated[list[_Text], Field(min_length=1)]
    gap_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    duration: float = Field(gt=0, le=MAX_SECONDS)
    text: _Text

    @field_validator("slice")
    @classmethod
    def _is_not_the_total(cls, name: str) -> str:
        if name == TOTAL:
            raise ValueError(f"'{TOTAL}' is the row of all slices in a table: choose another name")
        return name

    @property
    def clips(self) -> list[str]:
        """Return the paths of the clips, relative to the corpus folder, in their order."""
        return [self.audio_filepath] if isinstance(self.audio_filepath, str) else list(self.audio_filepath)


@dataclass(frozen=True)
class Corpus:
    """Utterances of a folder, in the order of its `utterances.jsonl`."""

    folder: Path
    utterances: tuple[Utterance, ...]

    def waveform(self, utterance: Utterance) -> npt.NDArray[np.float32]:
        """Read an utterance's clips and join them: float32 `[N]`, mono, 16 kHz, PCM scaled to -1..1.

        Raises StepError for a clip that is unreadable, empty, not mono, not 16 kHz, not finite or louder than
        LARGEST_SAMPLE, and for a length other than the manifest's.
        """
        gap = round(utterance.gap_seconds * SAMPLE_RATE_HZ)
        # Compare the clips' headers with the manifest first: a header may claim any length.
        counts = [_count_samples(self.folder, clip) for clip in utterance.clips]
        self._check_duration(utterance, sum(counts) + gap * (len(counts) - 1))
        silence = np.zeros(gap, dtype=np.float32)
        parts: list[npt.NDArray[np.float32]] = []
        for clip in utterance.clips:
            parts += [silence, _read_clip(self.folder, clip)]
        waveform = np.concatenate(parts[1:])
        self._check_duration(utterance, len(waveform))
        return waveform

    def _check_duration(self, utterance: Utterance, samples: int) -> None:
        seconds = samples / SAMPLE_RATE_HZ
        if abs(seconds - utterance.duration) > DURATION_TOLERANCE_SECONDS:
            raise StepError(
                f"{self.folder.name}: utterance '{utterance.id}' lasts {seconds:.3f} s, "
                f"{MANIFEST_NAME} says {utterance.duration:.3f} s",
                "copy the clips again, or write their true duration",
            )

    def evenly_spread(self, per_slice: int) -> tuple[Utterance, ...]:
        """Return at most `per_slice` utterances of each slice, evenly spread over it, in the order of the corpus."""
        members: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            members.setdefault(utterance.slice, []).append(utterance)
        chosen = {
            each[index * len(each) // count].id
            for each in members.values()
            for count in [min(per_slice, len(each))]
            for index in range(count)
        }
        return tuple(utterance for utterance in self.utterances if utterance.id in chosen)


def read_corpus(folder: Path, slices: Sequence[str] | None = None) -> Corpus:
    """Read and validate a corpus; with `slices`, keep only the utterances of these slices.

    Raises StepError, with the line, for text that is not UTF-8, for bad JSON, and for a missing or wrong key. It also
    names the line of an id that is used twice, and of a clip that is missing or outside the folder. Raises StepError
    for a corpus without utterances or without one of the `slices`.
    """
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        raise StepError(f"{folder}: contains no {MANIFEST_NAME}", "give the folder of a corpus")
    first_lines: dict[str, int] = {}
    utterances: list[Utterance] = []
    # Bytes that are not UTF-8 pass through to `_parse`, whose error names the line.
    with manifest.open(encoding="utf-8", errors="surrogateescape") as lines:
        # A line that is too long is not read to its end; `_parse` raises the error.
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_CHARACTERS + 1), ""), start=1):
            if not line.strip():
                continue
            location = f"{folder.name}/{MANIFEST_NAME}:{number}"
            utterance = _parse(line, location)
            for clip in utterance.clips:
                _check_clip_path(folder, clip, location)
            first = first_lines.setdefault(utterance.id, number)
            if first != number:
                raise StepError(
                    f"{location}: id: '{utterance.id}' is also on line {first}", "give each utterance an id of its own"
                )
            utterances.append(utterance)
    if not utterances:
        raise StepError(f"{folder.name}/{MANIFEST_NAME}: contains no utterances", "give a corpus with at least one")
    if slices is None:
        return Corpus(folder, tuple(utterances))
    present = sorted({utterance.slice for utterance in utterances})
    for wanted in slices:
        if wanted not in present:
            raise StepError(
                f"{folder.name}/{MANIFEST_NAME}: contains no slice '{wanted}'",
                f"choose among: {', '.join(map(repr, present))}",
            )
    return Corpus(folder, tuple(utterance for utterance in utterances if utterance.slice in slices))


def _parse(line: str, location: str) -> Utterance:
    fix = "write one JSON object per line: id, slice, audio_filepath, gap_seconds, duration, text"
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise StepError(f"{location}:{error.start + 1}: is not UTF-8", "save the file as UTF-8") from None
    if len(line) > MAX_LINE_CHARACTERS:
        raise StepError(f"{location}: has more than {MAX_LINE_CHARACTERS} characters", fix)
    value = parse_json(line.strip(), location, fix)
    try:
        return Utterance.model_validate(value)
    except ValidationError as error:
        raise StepError(f"{location}: {first_mistake(error, depth=1)}", fix) from None


def _check_clip_path(folder: Path, clip: str, location: str) -> None:
    path = PurePosixPath(clip)
    if path == PurePosixPath(MANIFEST_NAME):
        raise StepError(f"{location}: audio_filepath: '{clip}' is the manifest", "name a clip")
    if path.is_absolute() or ".." in path.parts:
        raise StepError(
            f"{location}: audio_filepath: '{clip}' points outside the corpus folder",
            "copy the clip into it, and name it relative to it",
        )
    try:
        is_there = (folder / path).is_file()
    except OSError:  # no file can have such a name
        is_there = False
    if not is_there:
        raise StepError(
            f"{location}: audio_filepath: no file at '{folder.name}/{clip}'", "copy the clip there, or correct its path"
        )


def _count_samples(folder: Path, clip: str) -> int:
    """Return the sample count in a clip's header. Raises StepError unless the clip is mono at 16 kHz."""
    location = f"{folder.name}/{clip}"
    if PurePosixPath(clip).suffix.lower() == ".raw":
        raise StepError(f"{location}: a .raw file has no header", "convert the clip to WAV or FLAC")
    with _library_errors(location):
        head = soundfile.info(folder / clip)
    if head.samplerate != SAMPLE_RATE_HZ or head.channels != 1:
        raise StepError(
            f"{location}: has {head.channels} channel(s) at {head.samplerate} Hz, needs one at {SAMPLE_RATE_HZ} Hz",
            "convert the clip to 16 kHz mono",
        )
    if head.frames <= 0:
        raise StepError(f"{location}: contains no samples", "copy the clip again; it is empty")
    return int(head.frames)


@contextmanager
def _library_errors(location: str) -> Iterator[None]:
    try:
        yield
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", str(error))
        raise StepError(f"{location}: cannot be read: {reason}", "copy the clip again; it is damaged") from None


def _read_clip(folder: Path, clip: str) -> npt.NDArray[np.float32]:
    location = f"{folder.name}/{clip}"
    with _library_errors(location):
        samples, _ = soundfile.read(folder / clip, dtype="float32", always_2d=True)
    waveform: npt.NDArray[np.float32] = samples[:, 0]
    if not np.isfinite(waveform).all():
        raise StepError(
            f"{location}: contains samples that are not finite", "write the clip as PCM_16, which cannot contain NaN"
        )
    if (largest := np.abs(waveform).max()) > LARGEST_SAMPLE:
        raise StepError(
            f"{location}: the magnitude of a sample must be at most {LARGEST_SAMPLE:g}, got {largest:g}",
            "scale the clip to -1..1",
        )
    return waveform

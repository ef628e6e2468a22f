"""Make the evaluation and the calibration corpus: FLAC clips, and `utterances.jsonl` with one row an utterance.

`python corpora.py evaluation ../evaluation` and `python corpora.py calibration ../calibration`.

A row holds `id`, `slice`, `audio_filepath` (a clip, or a list of clips to be joined with `gap_seconds` of zeros between
them), `duration` in seconds and `text`. The long slices of a corpus are the same clips in other orders and row lengths:
where their error rates differ, length and order are the reason, not what is said.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from dataclasses import dataclass
from pathlib import Path

import noise
import numpy as np
import sentences
import soundfile

import speech

GAP_SECONDS = 0.4
EDGE_SECONDS = 0.15
PEAK_DB = (-46.0, -34.0)  # quiet, because noise is most of the bytes of a FLAC file; the features hardly know the level
CLEAN_DB = (40.0, 50.0)


@dataclass(frozen=True)
class Slice:
    """A slice of single sentences: how many, and the range of their signal-to-noise ratio and of their soft endings."""

    name: str
    sentences: int
    snr_db: tuple[float, float]
    soft_words: tuple[int, int] = (0, 0)
    softer_db: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Corpus:
    """The single slices; the row lengths of the long slices joined from their clips, each with the number of orders
    that the clips are joined in; the seconds joined in each order."""

    seed: int
    slices: tuple[Slice, ...]
    long_seconds: dict[int, int]
    seconds_joined: int


CORPORA = {
    "evaluation": Corpus(
        seed=1,
        slices=(
            Slice("clean", 66, CLEAN_DB),
            Slice("noisy_1db", 66, (1.0, 1.0)),
            Slice("noisy_minus_1db", 66, (-1.0, -1.0)),
            Slice("noisy_minus_3db", 66, (-3.0, -3.0)),
            Slice("soft_endings", 66, (22.0, 28.0), (1, 2), (18.0, 25.0)),
        ),
        # What happens at one place of a long row may decide a whole sentence: one order has too few such places to tell
        # a loss from chance.
        long_seconds={20: 4, 60: 4, 120: 4, 240: 4},
        seconds_joined=480,
    ),
    "calibration": Corpus(
        seed=2,
        slices=(
            Slice("clean", 28, CLEAN_DB),
            Slice("noisy", 28, (0.0, 20.0)),
            Slice("soft_endings", 28, (25.0, 40.0), (1, 3), (10.0, 25.0)),
        ),
        long_seconds={20: 1, 60: 1, 120: 1},
        seconds_joined=240,
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of `utterances.jsonl`, its keys in their order there."""

    id: str
    slice: str
    audio_filepath: str | list[str]
    gap_seconds: float
    duration: float
    text: str


def make(name: str, folder: Path) -> None:
    """Write a whole corpus; the same bytes on every run with the same espeak-ng and libsndfile."""
    corpus = CORPORA[name]
    (folder / "clips").mkdir(parents=True)
    texts = iter(sentences.draw(name, sum(part.sentences for part in corpus.slices), corpus.seed))
    rows = [_speak(folder, corpus.seed, part, i, next(texts)) for part in corpus.slices for i in range(part.sentences)]
    rng = random.Random(f"{name}/joined/{corpus.seed}")
    chosen, seconds = [], 0.0
    for clip in rng.sample(rows, len(rows)):
        if seconds < corpus.seconds_joined:
            chosen.append(clip)
            seconds += _seconds_with_gap(clip)
    joined = [
        row
        for seconds, orders in corpus.long_seconds.items()
        for order in range(orders)
        for row in _join(chosen, seconds, order, corpus.seconds_joined, rng)
    ]
    with (folder / "utterances.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(dataclasses.asdict(row)) + "\n" for row in [*rows, *joined])


def _speak(folder: Path, seed: int, part: Slice, index: int, text: str) -> Row:
    rng = random.Random(f"{part.name}/{index}/{seed}")
    softness = speech.Softness(rng.randint(*part.soft_words), rng.uniform(*part.softer_db))
    wave = np.pad(speech.speak(text, speech.draw_voice(rng), softness), int(EDGE_SECONDS * speech.SAMPLE_RATE_HZ))
    wave = noise.mix(wave, rng.uniform(*part.snr_db), np.random.default_rng(rng.getrandbits(64)))
    wave *= np.float32(10 ** (rng.uniform(*PEAK_DB) / 20)) / np.abs(wave).max()
    name = f"{part.name}-{index:03d}"
    clip = f"clips/{name}.flac"
    soundfile.write(folder / clip, wave, speech.SAMPLE_RATE_HZ, subtype="PCM_16", compression_level=1.0)
    return Row(name, part.name, clip, 0.0, len(wave) / speech.SAMPLE_RATE_HZ, text)


def _join(clips: list[Row], seconds: int, order: int, seconds_joined: int, rng: random.Random) -> list[Row]:
    """Share all clips, in a new order, among rows of about `seconds` each."""
    count = seconds_joined // seconds
    shares: list[list[Row]] = [[] for _ in range(count)]
    total = sum(_seconds_with_gap(clip) for clip in clips)
    before = 0.0
    for clip in rng.sample(clips, len(clips)):
        middle = before + _seconds_with_gap(clip) / 2
        shares[int(count * middle / total)].append(clip)
        before += _seconds_with_gap(clip)
    part = f"long_{seconds}s"
    return [
        Row(
            f"{part}-{order * count + index:03d}",
            part,
            [str(clip.audio_filepath) for clip in share],
            GAP_SECONDS,
            round(sum(clip.duration for clip in share) + GAP_SECONDS * (len(share) - 1), 7),
            " ".join(clip.text for clip in share),
        )
        for index, share in enumerate(shares)
    ]


def _seconds_with_gap(clip: Row) -> float:
    return clip.duration + GAP_SECONDS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CORPORA)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    make(arguments.name, arguments.folder)

"""Make training recordings from spoken sentences: joined, louder and softer, noisy, short and up to two minutes long.

A long recording's loss over all its frames and tokens would need a lattice of millions of cells. But where each
sentence ends is known here, so the lattice is cut there into one small box a sentence: the encoder still sees the whole
recording and the predictor the whole text, as they will when a long recording is transcribed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import noise
import numpy as np

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = 1_280  # 10 ms of hop, times 8 of subsampling
CLEAN_SNR_DB = (30.0, 50.0)
NOISY_SNR_DB = (0.0, 25.0)
EASY_SNR_DB = 25.0


@dataclass(frozen=True)
class Recording:
    """Samples, float32 [n]; the sentences said; and for each sentence the encoder frame before which it is over."""

    samples: np.ndarray
    texts: tuple[str, ...]
    stop_frames: tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """A kind of batch: its share of all batches, how many recordings, and how many sentences in each (from, to)."""

    share: float
    recordings: int
    sentences: tuple[int, int]


SHAPES = (Shape(0.74, 16, (1, 1)), Shape(0.18, 4, (4, 8)), Shape(0.08, 1, (20, 40)))
BUCKET_BATCHES = 16  # so many batches of single sentences are sorted by length together


class Speech:
    """The spoken sentences of a split, as `synthesise.py` wrote them, read from the disk as they are needed."""

    def __init__(self, folder: Path, split: str) -> None:
        self._samples = np.memmap(folder / f"{split}.i16", dtype="<i2", mode="r")
        with (folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
            self._rows = [json.loads(line) for line in lines]

    def __len__(self) -> int:
        return len(self._rows)

    def seconds(self, index: int) -> float:
        """How long a sentence is."""
        row = self._rows[index]
        return float(row["stop"] - row["start"]) / SAMPLE_RATE_HZ

    def sentence(self, index: int) -> tuple[np.ndarray, str]:
        """A sentence's samples, float32 [n], and its text."""
        row = self._rows[index]
        return self._samples[row["start"] : row["stop"]].astype(np.float32) / 32768, row["text"]


def record(speech: Speech, chosen: list[int], hardness: float, rng: np.random.Generator) -> Recording:
    """Join sentences into a recording. Half of the time one noise lies over all of it, pauses included; else each
    sentence has its own, and the pauses are digital silence, as when clips are joined. `hardness` 0 to 1: how low the
    signal-to-noise ratio may be."""
    one_room = rng.random() < 0.5
    pieces: list[np.ndarray] = []
    texts: list[str] = []
    stops: list[int] = []
    length = 0
    for index in chosen:
        wave, text = speech.sentence(index)
        wave = _pause(0.05, 0.25, rng, wave) * np.float32(10 ** (rng.uniform(-15.0, 0.0) / 20))
        if not one_room:
            wave = noise.mix(wave, _snr_db(hardness, rng), rng)
        gap = int(rng.uniform(0.2, 0.8) * SAMPLE_RATE_HZ)
        pieces += [wave, np.zeros(gap, np.float32)]
        length += len(wave) + gap
        texts.append(text)
        stops.append(round((length - gap / 2) / SAMPLES_PER_FRAME))
    samples = np.concatenate(pieces[:-1])
    if one_room:
        samples = noise.mix(samples, _snr_db(hardness, rng), rng)
    level = 10 ** (rng.uniform(-30.0, 0.0) / 20)
    return Recording(samples * np.float32(level), tuple(texts), tuple(stops))


def batches(speech: Speech, count: int, seed: int) -> Iterator[list[Recording]]:
    """`count` batches, each of recordings of about the same length; they get harder over the first quarter."""
    rng = np.random.default_rng(seed)
    bucketed: list[list[int]] = []
    for step in range(count):
        hardness = min(1.0, 4 * step / count)
        shape = SHAPES[rng.choice(len(SHAPES), p=[shape.share for shape in SHAPES])]
        if shape.sentences == (1, 1):
            if not bucketed:
                bucketed = _buckets(speech, shape.recordings, rng)
            yield [record(speech, [index], hardness, rng) for index in bucketed.pop()]
        else:
            size = int(rng.integers(*shape.sentences, endpoint=True))
            chosen = rng.choice(len(speech), (shape.recordings, size), replace=False)
            yield [record(speech, row.tolist(), hardness, rng) for row in chosen]


def _buckets(speech: Speech, size: int, rng: np.random.Generator) -> list[list[int]]:
    chosen = rng.choice(len(speech), size * BUCKET_BATCHES, replace=False)
    ordered = np.array(sorted(chosen.tolist(), key=speech.seconds)).reshape(BUCKET_BATCHES, size)
    return [ordered[row].tolist() for row in rng.permutation(BUCKET_BATCHES)]


def _pause(least: float, most: float, rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
    before, after = (rng.uniform(least, most, 2) * SAMPLE_RATE_HZ).astype(int)
    return np.pad(wave, (before, after))


def _snr_db(hardness: float, rng: np.random.Generator) -> float:
    if rng.random() < 0.35:
        return float(rng.uniform(*CLEAN_SNR_DB))
    lowest = EASY_SNR_DB + hardness * (NOISY_SNR_DB[0] - EASY_SNR_DB)
    return float(rng.uniform(lowest, NOISY_SNR_DB[1]))

"""Speak the training or validation sentences into one file of samples, without noise.

`python synthesise.py WORK train 14000`, then `python synthesise.py WORK validation 120`. The first writes
WORK/train.i16 (all samples, 16 kHz) and WORK/train.jsonl (each sentence, and where it lies among the samples).
"""

from __future__ import annotations

import argparse
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import sentences

import speech

SOFT_ENDINGS = 0.25
SOFT_BEGINNINGS = 0.08


def draw_softness(rng: random.Random) -> speech.Softness:
    """Mostly none; sometimes the last or first one to three words are 10 to 25 dB softer."""
    chance = rng.random()
    if chance < SOFT_ENDINGS:
        return speech.Softness(rng.randint(1, 3), rng.uniform(10, 25))
    if chance < SOFT_ENDINGS + SOFT_BEGINNINGS:
        return speech.Softness(-rng.randint(1, 2), rng.uniform(10, 20))
    return speech.LOUD


def synthesise(folder: Path, split: str, count: int, workers: int) -> None:
    """Write `<split>.i16` and `<split>.jsonl`; the same bytes whatever the number of workers."""
    rng = random.Random(f"synthesise/{split}")
    work = [(text, speech.draw_voice(rng), draw_softness(rng)) for text in sentences.draw(split, count, seed=0)]
    folder.mkdir(parents=True, exist_ok=True)
    stop = 0
    with (
        ThreadPoolExecutor(workers) as pool,
        (folder / f"{split}.i16").open("wb") as samples,
        (folder / f"{split}.jsonl").open("w", encoding="utf-8") as lines,
    ):
        for (text, _, _), wave in zip(work, pool.map(lambda job: speech.speak(*job), work), strict=True):
            samples.write(np.round(wave * 32767).astype("<i2").tobytes())
            start, stop = stop, stop + len(wave)
            lines.write(json.dumps({"text": text, "start": start, "stop": stop}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("split", choices=sentences.SPLITS)
    parser.add_argument("count", type=int)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    synthesise(arguments.folder, arguments.split, arguments.count, arguments.workers)

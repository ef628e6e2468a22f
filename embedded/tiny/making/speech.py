"""Speak sentences with espeak-ng, in many voices, with words at the end or the beginning as soft as wanted."""

from __future__ import annotations

import io
import random
import subprocess
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr  # type: ignore[import-untyped]  # has no types

SAMPLE_RATE_HZ = 16_000
ACCENTS = (
    "en-us",
    "en-gb",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-029",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-us-nyc",
)
SPEAKERS = ("m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f4", "Alex", "Michael", "Annie")
SILENCE_DB = -50.0


@dataclass(frozen=True)
class Voice:
    """Who speaks: espeak-ng's voice name, its speed and its pitch (0 to 99)."""

    name: str
    words_per_minute: int
    pitch: int


@dataclass(frozen=True)
class Softness:
    """How many words at the end (or, when negative, at the beginning) are how many dB softer than the rest."""

    words: int
    softer_db: float


LOUD = Softness(0, 0.0)


def draw_voice(rng: random.Random) -> Voice:
    """A random accent, speaker, speed and pitch."""
    return Voice(f"{rng.choice(ACCENTS)}+{rng.choice(SPEAKERS)}", rng.randint(150, 220), rng.randint(25, 75))


def speak(text: str, voice: Voice, softness: Softness = LOUD) -> np.ndarray:
    """Speech, float32 [samples] at 16 kHz, at most 1.0 in size, silence at both ends cut off; the same on every run."""
    manner = ["-v", voice.name, "-s", str(voice.words_per_minute), "-p", str(voice.pitch)]
    command = ["espeak-ng", "-m", *manner, "--stdout", _marked_up(text, softness)]
    spoken = subprocess.run(command, capture_output=True, check=True).stdout
    wave, rate_hz = soundfile.read(io.BytesIO(spoken), dtype="float32")
    wave = soxr.resample(wave, rate_hz, SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(wave) > np.abs(wave).max() * 10 ** (_quietest_db(softness) / 20))
    trimmed: np.ndarray = np.clip(wave[loud[0] : loud[-1] + 1], -1.0, 1.0).astype(np.float32)
    return trimmed


def _marked_up(text: str, softness: Softness) -> str:
    words = text.split()
    if softness.words == 0:
        return f"<speak>{text}</speak>"
    start, stop = (len(words) - softness.words, len(words)) if softness.words > 0 else (0, -softness.words)
    percent = 100 * 10 ** (-softness.softer_db / 20)
    soft = f'<prosody volume="{percent:.1f}">{" ".join(words[start:stop])}</prosody>'
    return f"<speak>{' '.join([*words[:start], soft, *words[stop:]])}</speak>"


def _quietest_db(softness: Softness) -> float:
    """Below this, in dB under the peak, the ends of a sentence are silence; soft words are not."""
    return SILENCE_DB - softness.softer_db

"""Background noise of several colours, at a given ratio to the speech."""

from __future__ import annotations

import numpy as np
import scipy.fft  # type: ignore[import-untyped]  # has no types

SLOPES_DB_PER_OCTAVE = (0.0, -3.0, -6.0)  # white, pink, brown
LOWEST_HZ = 60.0
SAMPLE_RATE_HZ = 16_000


def coloured(samples: int, slope_db_per_octave: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, float32 [samples], power 1, whose spectrum falls by this slope above 60 Hz."""
    size = 1 << (samples - 1).bit_length()  # a transform of another length can be many times slower
    spectrum = scipy.fft.rfft(rng.standard_normal(size, np.float32))
    octaves = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ), LOWEST_HZ) / LOWEST_HZ)
    gains = (10 ** (slope_db_per_octave * octaves / 20)).astype(np.float32)
    wave: np.ndarray = scipy.fft.irfft(spectrum * gains, size)[:samples]
    wave /= np.sqrt(np.mean(wave**2))
    return wave


def swelling(samples: int, rng: np.random.Generator) -> np.ndarray:
    """A gain, float32 [samples], that wanders by some 3 dB within each second: wind, a passing car, a crowd."""
    points = rng.normal(0.0, 3.0, samples // 8_000 + 2)
    decibels = np.interp(np.arange(samples) / 8_000, np.arange(len(points)), points)
    return (10 ** (decibels / 20)).astype(np.float32)


def draw(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a random colour and, half of the time, of changing loudness; float32 [samples], power about 1."""
    wave = coloured(samples, float(rng.choice(SLOPES_DB_PER_OCTAVE)), rng)
    return wave * swelling(samples, rng) if rng.random() < 0.5 else wave


def mix(speech: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Speech with noise `snr_db` below its power, where the power is taken over the samples that are not silence."""
    power = np.mean(speech[speech != 0.0] ** 2)
    return speech + draw(len(speech), rng) * np.float32(np.sqrt(power) * 10 ** (-snr_db / 20))

"""Kaldi's filterbank for many frames at once: `artifacts.speech.sherpa_streaming.features`, several times faster.

Training makes new noise for every batch, so that features are a large part of its time. `check_training.py` holds the
two against one another.
"""

from __future__ import annotations

import numpy as np
import torch

SAMPLE_RATE_HZ = 16_000
WINDOW, SHIFT, FFT, BINS = 400, 160, 512, 80
LOW_HZ, HIGH_HZ = 20.0, 7_600.0
PREEMPHASIS = 0.97
LEAST = float(np.finfo(np.float32).eps)


def _mel(hz: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)


def _filters() -> torch.Tensor:
    """Triangles of equal width on the mel scale, float32 [FFT / 2 + 1, BINS]; the Nyquist bin belongs to none."""
    edges = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), BINS + 2)
    mel = _mel(np.arange(FFT // 2 + 1) * SAMPLE_RATE_HZ / FFT)[:, None]
    width = edges[1] - edges[0]
    triangles = np.clip(np.minimum((mel - edges[:-2]) / width, (edges[2:] - mel) / width), 0.0, None)
    triangles[-1] = 0.0
    return torch.from_numpy(triangles.astype(np.float32))


def _povey() -> torch.Tensor:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))
    return torch.from_numpy((hann**0.85).astype(np.float32))


FILTERS, POVEY = _filters(), _povey()


def features(wave: np.ndarray) -> torch.Tensor:
    """Log-mel features of a waveform, float32 [N] in -1 to 1 → [T, 80]."""
    frames = (len(wave) + SHIFT // 2) // SHIFT
    before = (WINDOW - SHIFT) // 2
    after = max(0, frames * SHIFT + before - len(wave))
    signal = torch.from_numpy(np.pad(wave, (before, after), mode="symmetric"))
    x = signal.unfold(0, WINDOW, SHIFT)[:frames]
    x = x - x.mean(1, keepdim=True)
    x = torch.cat([x[:, :1] * (1 - PREEMPHASIS), x[:, 1:] - PREEMPHASIS * x[:, :-1]], 1)
    spectrum = torch.fft.rfft(x * POVEY, FFT)
    power = spectrum.real**2 + spectrum.imag**2
    return (power @ FILTERS).clamp_min(LEAST).log()

"""Kaldi's log-mel filterbank as sherpa-ncnn computes it for its streaming models.

By kaldi-native-fbank, which is also what sherpa-ncnn is built on: 25 ms povey windows every 10 ms, the first one
centred 5 ms into the signal (`snip_edges` false), 80 mel bins from 20 Hz to 400 Hz below Nyquist, no dither, samples
from −1 to 1. Nothing is normalised: louder speech is the same features plus a constant, and digital silence is −15.9
everywhere.
"""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
MEL_BINS = 80
HIGH_FREQUENCY_HZ = -400
"""Below Nyquist."""


class FeatureStream:
    """Features of a waveform that comes in pieces: the same, to the bit, as of the whole."""

    def __init__(self) -> None:
        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = SAMPLE_RATE_HZ
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = False
        options.mel_opts.num_bins = MEL_BINS
        options.mel_opts.high_freq = HIGH_FREQUENCY_HZ
        self._fbank = kaldi_native_fbank.OnlineFbank(options)
        self._taken = 0

    def accept(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take the next samples, float32 `[N]`; return the frames that they complete, float32 `[T, 80]`."""
        self._fbank.accept_waveform(SAMPLE_RATE_HZ, waveform)
        return self._take()

    def finish(self) -> npt.NDArray[np.float32]:
        """The frames that waited for more samples; the signal is mirrored at its end to fill their windows."""
        self._fbank.input_finished()
        return self._take()

    def _take(self) -> npt.NDArray[np.float32]:
        ready = self._fbank.num_frames_ready
        frames = np.empty((ready - self._taken, MEL_BINS), dtype=np.float32)
        for row, index in enumerate(range(self._taken, ready)):
            frames[row] = self._fbank.get_frame(index)
        self._fbank.pop(ready - self._taken)
        self._taken = ready
        return frames


def features(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """All frames of a waveform, float32 `[N]` → `[T, 80]`, T = N / 160 rounded half up."""
    stream = FeatureStream()
    return np.concatenate([stream.accept(waveform), stream.finish()])

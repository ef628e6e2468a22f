"""Transcribe a stream as sherpa-ncnn does: Kaldi features, chunks, and greedy decoding with a stateless predictor.

Features come from kaldi-native-fbank, on which sherpa-ncnn is built too. They are 80 log-mel bins from 20 Hz to 400 Hz
below Nyquist, in 25 ms povey windows every 10 ms; the first window is centred 5 ms into the signal (`snip_edges`
false). Samples range from −1 to 1, without dither. Nothing is normalised: louder speech has the same features plus a
constant, and digital silence is −15.9 everywhere.

The encoder gets 9 feature frames at a time, each time 4 frames further on, with its states. It runs when *more* than
9 frames are there, so it never reaches the last frame of a recording: append silence to get the last word, as
sherpa-ncnn's own examples do. Each encoder frame gives at most one token; blank (0) and `<unk>` (2) give none. The
predictor reads the last tokens only, blanks before the first. Source: sherpa-ncnn 2.1.15, its recogniser, its greedy
search decoder and its LSTM model.
"""

from __future__ import annotations

from typing import Any, Protocol

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
MEL_BINS = 80
# Relative to Nyquist.
HIGH_FREQUENCY_HZ = -400
CHUNK_FRAMES = 9
SHIFT_FRAMES = 4
# Ids that are not tokens: blank, and `<unk>`, for which sherpa-ncnn assumes 2.
SILENT = (0, 2)
# The silence that sherpa-ncnn's examples append to a recording.
TAIL_SECONDS = 0.5

Array = npt.NDArray[np.float32]


class FeatureStream:
    """Features of a waveform that arrives in chunks: bit for bit those of the whole waveform."""

    def __init__(self) -> None:
        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = SAMPLE_RATE_HZ
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = False
        options.mel_opts.num_bins = MEL_BINS
        options.mel_opts.high_freq = HIGH_FREQUENCY_HZ
        self._fbank = kaldi_native_fbank.OnlineFbank(options)
        self._taken = 0

    def accept(self, waveform: Array) -> Array:
        """Take the next samples, float32 `[N]`; return the frames that they complete, float32 `[T, 80]`."""
        self._fbank.accept_waveform(SAMPLE_RATE_HZ, waveform)
        return self._take()

    def finish(self) -> Array:
        """Return the frames that still wait for samples; the signal is mirrored at its end to fill their windows."""
        self._fbank.input_finished()
        return self._take()

    def _take(self) -> Array:
        ready = self._fbank.num_frames_ready
        frames = np.empty((ready - self._taken, MEL_BINS), dtype=np.float32)
        for row, index in enumerate(range(self._taken, ready)):
            frames[row] = self._fbank.get_frame(index)
        self._fbank.pop(ready - self._taken)
        self._taken = ready
        return frames


def features(waveform: Array) -> Array:
    """Return all frames of a waveform, float32 `[N]` → `[T, 80]`, T = N / 160 rounded half up."""
    stream = FeatureStream()
    return np.concatenate([stream.accept(waveform), stream.finish()])


class StreamingNetworks(Protocol):
    """The three networks of a model, in any runtime. D, D' and V depend on the model."""

    context_size: int
    """Number of tokens that the predictor takes."""

    def zero_states(self) -> Any:
        """Return the encoder's states before the first frame, in the form that `encode` takes."""

    def encode(self, features: Array, states: Any) -> tuple[Array, Any]:
        """Encode features `[9, 80]` after `states` into one frame `[1, D]`; return it with the next states."""

    def predict(self, tokens: list[int]) -> Array:
        """Return the predictor's output `[D']` for the last `context_size` tokens."""

    def join(self, frame: Array, prediction: Array) -> Array:
        """Return the logits `[V]` of an encoder frame `[D]` and the predictor's output `[D']`."""


class GreedyStream:
    """Transcribe one recording that arrives in chunks of any size; `tokens` are the ids so far."""

    def __init__(self, networks: StreamingNetworks) -> None:
        self._networks = networks
        self._features = FeatureStream()
        self._waiting: Array = np.empty((0, MEL_BINS), dtype=np.float32)
        self._states = networks.zero_states()
        self._context = [0] * networks.context_size
        self._prediction = networks.predict(self._context)
        self.tokens: list[int] = []

    def accept(self, waveform: Array) -> None:
        """Take the next samples, float32 `[N]`, 16 kHz, −1 to 1, and decode the chunks that they complete."""
        self._decode(self._features.accept(waveform))

    def finish(self) -> None:
        """Decode the rest of the recording."""
        self._decode(self._features.finish())

    def _decode(self, features: Array) -> None:
        frames, start = np.concatenate([self._waiting, features]), 0
        while len(frames) - start > CHUNK_FRAMES:
            encoded, self._states = self._networks.encode(frames[start : start + CHUNK_FRAMES], self._states)
            start += SHIFT_FRAMES
            for frame in encoded:
                self._append(int(np.argmax(self._networks.join(frame, self._prediction))))
        self._waiting = frames[start:]

    def _append(self, token: int) -> None:
        if token not in SILENT:
            self.tokens.append(token)
            self._context = [*self._context[1:], token]
            self._prediction = self._networks.predict(self._context)


def transcribe(networks: StreamingNetworks, waveform: Array, tail_seconds: float = TAIL_SECONDS) -> list[int]:
    """Return the token ids of a whole recording, float32 `[N]`, with this much silence appended."""
    stream = GreedyStream(networks)
    stream.accept(np.pad(waveform, (0, round(tail_seconds * SAMPLE_RATE_HZ))))
    stream.finish()
    return stream.tokens

"""Greedy streaming decoding of a transducer with a stateless decoder, step for step as sherpa-ncnn does it.

The encoder is given 9 feature frames at a time, each 4 frames further on, and its states are carried along. It is
called when *more* than 9 frames are there, so the last one of a recording is never reached: whoever wants the last
word appends silence, as sherpa-ncnn's own examples do. Each encoder frame says at most one token; blank (0) and `<unk>`
(2) say none. The decoder sees the last tokens only, blanks before the first. Source: sherpa-ncnn 2.1.15, its
recognizer, its greedy search decoder and its LSTM model.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from artifacts.speech.kaldi_features import MEL_BINS, SAMPLE_RATE_HZ, FeatureStream

CHUNK_FRAMES = 9
SHIFT_FRAMES = 4
SILENT = (0, 2)
"""The ids that are no tokens: blank, and `<unk>`, which sherpa-ncnn takes to be 2."""
TAIL_SECONDS = 0.5
"""The silence that sherpa-ncnn's examples append to a recording."""

Array = npt.NDArray[np.float32]


class StreamingNetworks(Protocol):
    """The three networks of a model, over whatever runs them. D, D' and V are the model's own."""

    context_size: int
    """How many tokens the decoder sees."""

    def zero_states(self) -> Any:
        """The encoder's states before the first frame, in whatever form `encode` takes them."""

    def encode(self, features: Array, states: Any) -> tuple[Array, Any]:
        """Features `[9, 80]` and states → encoder frames `[T', D]`, here one, and the states after them."""

    def predict(self, tokens: list[int]) -> Array:
        """The last `context_size` tokens → the decoder's output `[D']`."""

    def join(self, frame: Array, prediction: Array) -> Array:
        """An encoder frame `[D]` and the decoder's output `[D']` → logits `[V]`."""


class GreedyStream:
    """One recording, taken in pieces of any size; `tokens` are the ids heard so far."""

    def __init__(self, networks: StreamingNetworks) -> None:
        self._networks = networks
        self._features = FeatureStream()
        self._waiting: Array = np.empty((0, MEL_BINS), dtype=np.float32)
        self._states = networks.zero_states()
        self._context = [0] * networks.context_size
        self._prediction = networks.predict(self._context)
        self.tokens: list[int] = []

    def accept(self, waveform: Array) -> None:
        """Take the next samples, float32 `[N]`, 16 kHz, −1 to 1, and decode what they complete."""
        self._decode(self._features.accept(waveform))

    def finish(self) -> None:
        """Decode what waited for more samples."""
        self._decode(self._features.finish())

    def _decode(self, features: Array) -> None:
        frames, start = np.concatenate([self._waiting, features]), 0
        while len(frames) - start > CHUNK_FRAMES:
            encoded, self._states = self._networks.encode(frames[start : start + CHUNK_FRAMES], self._states)
            start += SHIFT_FRAMES
            for frame in encoded:
                self._say(int(np.argmax(self._networks.join(frame, self._prediction))))
        self._waiting = frames[start:]

    def _say(self, token: int) -> None:
        if token not in SILENT:
            self.tokens.append(token)
            self._context = [*self._context[1:], token]
            self._prediction = self._networks.predict(self._context)


def transcribe(networks: StreamingNetworks, waveform: Array, tail_seconds: float = TAIL_SECONDS) -> list[int]:
    """Token ids of a whole recording, float32 `[N]`, with so much silence appended."""
    stream = GreedyStream(networks)
    stream.accept(np.pad(waveform, (0, round(tail_seconds * SAMPLE_RATE_HZ))))
    stream.finish()
    return stream.tokens

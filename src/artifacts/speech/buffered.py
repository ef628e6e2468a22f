"""Buffered streaming: an offline encoder over windows of a recording, of which the middle is kept.

An encoder that was trained on whole recordings looks as far back and as far ahead as they go, and no setting makes a
stream of it. What can be done is to run it over and over: a chunk of speech, with some of what came before it (left
context) and some of what comes after (right context), goes through the preprocessor and the encoder, and the chunk's
frames are kept. These are the windows of NeMo's streaming inference for offline transducers (NVIDIA-NeMo/Speech, pull
request 9106): nothing is padded on the left, so that the first windows are shorter, and what is left at the end of the
recording belongs to the last chunk.

A sound waits for the end of its chunk and for the right context: chunk + right is the latency, before anything is
computed. Left context costs no latency, but is encoded again for each chunk.

Frames see less than of a whole recording, and that costs words, the more the less they see of what follows. Features
are normalised over their window, since who streams has not the whole. `docs/decisions/11-buffered-streaming.md` has
what that comes to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.model.model_meta import ModelMeta
from artifacts.speech.corpus import SAMPLE_RATE_HZ
from artifacts.speech.frontend import Encoder, Preprocessor


@dataclass(frozen=True)
class FrameSize:
    """How many samples (16 kHz) lie between features, and how many features between encoder frames."""

    hop_samples: int
    subsampling_factor: int

    @property
    def samples(self) -> int:
        """Samples between encoder frames."""
        return self.hop_samples * self.subsampling_factor

    @property
    def seconds(self) -> float:
        """Seconds between encoder frames."""
        return self.samples / SAMPLE_RATE_HZ

    def count(self, name: str, seconds: float) -> int:
        """How many encoder frames `seconds` are. StepError, with the `name`, unless that is a whole number."""
        samples = round(seconds * SAMPLE_RATE_HZ)
        if samples % self.samples:
            below = samples // self.samples
            near = [count * self.seconds for count in (below, below + 1) if count]
            raise StepError(
                f"{name}: {seconds:g} s is no whole number of the encoder's frames, which are {self.seconds:g} s apart",
                f"give {' or '.join(f'{value:g}' for value in near)}",
            )
        return samples // self.samples


def read_frame_size(model_meta: Path) -> FrameSize:
    """Read `features.hop_length` and `subsampling_factor` from a checkpoint's `model_meta.json`.

    Raises StepError if one is missing or no number above 0.
    """
    meta = ModelMeta(model_meta, "write the model_meta again from the checkpoint")
    return FrameSize(meta.size("features.hop_length"), meta.size("subsampling_factor"))


@dataclass(frozen=True)
class Window:
    """A part of a recording: what is encoded, and which of the frames that come out are kept."""

    samples: slice
    """Of the recording; begins on an encoder frame."""
    frames: int
    """How many the encoder gives for these samples."""
    kept: slice
    """Of these frames."""


@dataclass(frozen=True)
class Buffering:
    """Chunk, left and right context, in encoder frames."""

    frame: FrameSize
    chunk: int
    left: int
    right: int

    @property
    def latency_seconds(self) -> float:
        """The longest that a sound waits before it is decoded, what is computed left out."""
        return round((self.chunk + self.right) * self.frame.seconds, 6)

    @property
    def encoded_times(self) -> float:
        """How many times a second of a long recording goes through the encoder."""
        return round((self.left + self.chunk + self.right) / self.chunk, 3)

    def windows(self, samples: int) -> Iterator[Window]:
        """The windows of a recording of so many samples. They keep each frame of the recording, once, in order.

        n samples are n // hop features. Each convolution of the subsampling halves those and rounds up, so that there
        is a frame for every `subsampling_factor` features, full or begun; and at least one.
        """
        hop, factor = self.frame.hop_samples, self.frame.subsampling_factor
        features = samples // hop
        all_frames = max(1, -(-features // factor))
        first = 0
        while True:
            begin = max(0, first - self.left)
            end = first + self.chunk + self.right
            # Less than a feature may follow the last one: it makes no frame, but belongs to the window.
            if end * factor >= features:
                rest = slice(begin * self.frame.samples, samples)
                yield Window(rest, all_frames - begin, slice(first - begin, all_frames - begin))
                return
            part = slice(begin * self.frame.samples, end * self.frame.samples)
            yield Window(part, end - begin, slice(first - begin, first - begin + self.chunk))
            first += self.chunk


class BufferedFrontend:
    """From a waveform to encoder frames, window by window: what is kept of one window is final before the next begins.

    Greedy decoding takes frames in order and never goes back. So to decode what all windows keep, joined, is to decode
    chunk by chunk, with the predictor's state, the last token and the frames that a duration has still to skip carried
    from each chunk into the next.
    """

    def __init__(self, preprocess: Preprocessor, encode: Encoder, buffering: Buffering) -> None:
        self._preprocess = preprocess
        self._encode = encode
        self._buffering = buffering

    def chunks(self, waveform: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        """The frames `[t, D]` of each chunk of a waveform `[N]`: `chunk` of them; in the last one up to chunk + right.

        Raises StepError if the encoder does not give as many frames for a window as it must.
        """
        for window in self._buffering.windows(len(waveform)):
            features, lengths = self._preprocess.features(waveform[window.samples])
            frames = self._encode.frames(features, lengths)
            if len(frames) != window.frames:
                apart = self._buffering.frame.seconds
                raise StepError(
                    f"the encoder gives {len(frames)} frames for {int(lengths[0])} features; "
                    f"they are {window.frames} if, as model_meta.json says, they are {apart:g} s apart",
                    "give the encoder, the preprocessor and the model_meta of one checkpoint",
                )
            yield frames[window.kept]

    def frames(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The frames `[T', D]` of a waveform `[N]`: as many as if it were encoded whole."""
        return np.concatenate(list(self.chunks(waveform)))

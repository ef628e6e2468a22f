"""Buffered streaming: run an offline encoder over windows of a recording, and keep the frames in the middle of each.

An encoder that was trained on whole recordings attends to all of a recording, and no setting turns it into a streaming
encoder. But it can run repeatedly. A window is a chunk of speech, with speech before it (left context) and after it
(right context). It goes through the preprocessor and the encoder, and the chunk's frames are kept. The windows are
those of NeMo's streaming inference for offline transducers (NVIDIA-NeMo/Speech, pull request 9106): no padding on the
left, so the first windows are shorter, and the rest of the recording belongs to the last chunk.

A sound waits for the end of its chunk and for the right context: the latency is chunk + right, without the time for
computing. Left context adds no latency, but is encoded again for each chunk.

Frames attend to less than the whole recording, which costs words, above all with little right context. Features are
normalised over their window, because a stream has no more. `docs/decisions/11-buffered-streaming.md` has the numbers.
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
from artifacts.speech.frontend import OnnxEncoder, Preprocessor


@dataclass(frozen=True)
class FrameSize:
    """Samples (16 kHz) between features, and features between encoder frames."""

    hop_samples: int
    subsampling_factor: int

    @property
    def samples(self) -> int:
        """Return the samples between encoder frames."""
        return self.hop_samples * self.subsampling_factor

    @property
    def seconds(self) -> float:
        """Return the seconds between encoder frames."""
        return self.samples / SAMPLE_RATE_HZ

    def count(self, name: str, seconds: float) -> int:
        """Return `seconds` in encoder frames. Raises StepError, with the `name`, unless it is a whole number."""
        samples = round(seconds * SAMPLE_RATE_HZ)
        if samples % self.samples:
            below = samples // self.samples
            near = [count * self.seconds for count in (below, below + 1) if count]
            raise StepError(
                f"{name}: {seconds:g} s is not a whole number of encoder frames, which are {self.seconds:g} s apart",
                f"give {' or '.join(f'{value:g}' for value in near)}",
            )
        return samples // self.samples


def read_frame_size(model_meta: Path) -> FrameSize:
    """Read `features.hop_length` and `subsampling_factor` from a checkpoint's `model_meta.json`.

    Raises StepError if one is missing or is not a number above 0.
    """
    meta = ModelMeta(model_meta, "write the model_meta again from the checkpoint")
    return FrameSize(meta.size("features.hop_length"), meta.size("subsampling_factor"))


@dataclass(frozen=True)
class Window:
    """A part of a recording that is encoded, and the frames of it that are kept."""

    samples: slice
    """Samples of the recording; they begin on an encoder frame."""
    frames: int
    """Number of frames that the encoder gives for these samples."""
    kept: slice
    """Range of these frames that is kept."""


@dataclass(frozen=True)
class Buffering:
    """Chunk, left and right context, in encoder frames."""

    frame: FrameSize
    chunk: int
    left: int
    right: int

    @property
    def latency_seconds(self) -> float:
        """Return the longest wait of a sound before it is decoded, without the time for computing."""
        return round((self.chunk + self.right) * self.frame.seconds, 6)

    @property
    def encoded_times(self) -> float:
        """Return how many times each second of a long recording is encoded."""
        return round((self.left + self.chunk + self.right) / self.chunk, 3)

    def windows(self, samples: int) -> Iterator[Window]:
        """Yield the windows of a recording of `samples`. They keep each frame of the recording once, in order.

        n samples are n // hop features. Each convolution of the subsampling halves their number and rounds up. So there
        is one frame for every `subsampling_factor` features, also for an incomplete group; and at least one.
        """
        hop, factor = self.frame.hop_samples, self.frame.subsampling_factor
        features = samples // hop
        all_frames = max(1, -(-features // factor))
        first = 0
        while True:
            begin = max(0, first - self.left)
            end = first + self.chunk + self.right
            # Less than one feature may follow the last one: it adds no frame, but belongs to the window.
            if end * factor >= features:
                rest = slice(begin * self.frame.samples, samples)
                yield Window(rest, all_frames - begin, slice(first - begin, all_frames - begin))
                return
            part = slice(begin * self.frame.samples, end * self.frame.samples)
            yield Window(part, end - begin, slice(first - begin, first - begin + self.chunk))
            first += self.chunk


class BufferedFrontend:
    """Compute encoder frames from a waveform window by window: the frames of one window are final before the next.

    Greedy decoding takes frames in order and never goes back. So decoding the joined frames of all windows equals
    decoding chunk by chunk, with three things carried over: the predictor's state, the last token, and the frames that
    a duration still has to skip.
    """

    def __init__(self, preprocess: Preprocessor, encode: OnnxEncoder, buffering: Buffering) -> None:
        self._preprocess = preprocess
        self._encode = encode
        self._buffering = buffering

    def chunks(self, waveform: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the frames `[t, D]` of each chunk of a waveform `[N]`; t is `chunk`, at the end up to chunk + right.

        Raises StepError if the encoder gives another number of frames for a window than `Window.frames`.
        """
        for window in self._buffering.windows(len(waveform)):
            features, lengths = self._preprocess.features(waveform[window.samples])
            frames = self._encode.frames(features, lengths)
            if len(frames) != window.frames:
                apart = self._buffering.frame.seconds
                raise StepError(
                    f"the encoder gives {len(frames)} frames for {int(lengths[0])} features; "
                    f"model_meta.json says {window.frames}, which are {apart:g} s apart",
                    "give the encoder, the preprocessor and the model_meta of one checkpoint",
                )
            yield frames[window.kept]

    def frames(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the frames `[T', D]` of a waveform `[N]`: as many as if it were encoded as a whole."""
        return np.concatenate(list(self.chunks(waveform)))

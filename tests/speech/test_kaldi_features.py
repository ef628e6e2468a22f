from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from artifacts.speech.corpus import read_corpus
from artifacts.speech.kaldi_features import FeatureStream, features

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def waveform(evaluation: Path) -> Array:
    """Two seconds of real speech, float32 `[N]`."""
    corpus = read_corpus(evaluation, ("soft_endings",))
    return corpus.waveform(corpus.utterances[0])[:32_000]


def _by_the_book(waveform: Array) -> npt.NDArray[np.float64]:
    """Kaldi's filterbank written out, in double precision."""
    count = (len(waveform) + 80) // 160
    signal = np.pad(waveform.astype(np.float64), (120, 280), mode="symmetric")
    frames = np.stack([signal[160 * index : 160 * index + 400] for index in range(count)])
    frames -= frames.mean(1, keepdims=True)
    frames = np.concatenate([frames[:, :1] * 0.03, frames[:, 1:] - 0.97 * frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    mel = 1127 * np.log1p(np.arange(257) * 16_000 / 512 / 700)[:, None]
    low, high = (1127 * np.log1p(hz / 700) for hz in (20.0, 8_000.0 - 400.0))
    edges = np.linspace(low, high, 82)
    width = edges[1] - edges[0]
    triangles = np.clip(np.minimum((mel - edges[:-2]) / width, (edges[2:] - mel) / width), 0, None)
    return np.asarray(np.log(np.maximum(power @ triangles, np.finfo(np.float32).eps)))


def test_speech_gives_the_numbers_of_kaldis_definition(waveform: Array) -> None:
    have = features(waveform)
    assert have.shape == ((len(waveform) + 80) // 160, 80)
    assert len(have) > 150
    assert have.dtype == np.float32
    assert np.max(np.abs(have - _by_the_book(waveform))) < 2e-3


@pytest.mark.parametrize("pieces", [2, 13, 400])
def test_pieces_give_the_bits_of_the_whole(pieces: int, waveform: Array) -> None:
    stream = FeatureStream()
    parts = [stream.accept(piece) for piece in np.array_split(waveform, pieces)]
    assert np.array_equal(np.concatenate([*parts, stream.finish()]), features(waveform))


def test_digital_silence_is_the_least_there_is() -> None:
    assert np.all(features(np.zeros(1_600, np.float32)) == np.float32(-15.942385))


def test_twice_as_loud_is_the_same_plus_a_constant(waveform: Array) -> None:
    quiet, loud = features(waveform), features(2 * waveform)
    heard = quiet > -12
    assert np.max(np.abs((loud - quiet)[heard] - np.log(4))) < 1e-3
    assert heard.mean() > 0.2


@pytest.mark.parametrize(("samples", "frames"), [(79, 0), (80, 1), (239, 1), (240, 2), (16_000, 100)])
def test_there_is_a_frame_for_each_ten_milliseconds(samples: int, frames: int) -> None:
    assert features(np.zeros(samples, np.float32)).shape == (frames, 80)

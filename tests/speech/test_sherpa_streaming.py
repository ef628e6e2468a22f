from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from artifacts.speech.corpus import Corpus, read_corpus
from artifacts.speech.sherpa_streaming import FeatureStream, GreedyStream, features, transcribe
from artifacts.speech.word_error_rate import count_errors, sum_errors

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def waveform(evaluation: Path) -> Array:
    """Two seconds of real speech, float32 `[N]`."""
    corpus = read_corpus(evaluation, ("soft_endings",))
    return corpus.waveform(corpus.utterances[0])[:32_000]


def _by_definition(waveform: Array) -> npt.NDArray[np.float64]:
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
    assert np.max(np.abs(have - _by_definition(waveform))) < 2e-3


@pytest.mark.parametrize("pieces", [2, 13, 400])
def test_chunks_give_the_bits_of_the_whole(pieces: int, waveform: Array) -> None:
    stream = FeatureStream()
    parts = [stream.accept(piece) for piece in np.array_split(waveform, pieces)]
    assert np.array_equal(np.concatenate([*parts, stream.finish()]), features(waveform))


def test_digital_silence_gives_the_smallest_feature() -> None:
    assert np.all(features(np.zeros(1_600, np.float32)) == np.float32(-15.942385))


def test_twice_as_loud_is_the_same_plus_a_constant(waveform: Array) -> None:
    quiet, loud = features(waveform), features(2 * waveform)
    is_speech = quiet > -12
    assert np.max(np.abs((loud - quiet)[is_speech] - np.log(4))) < 1e-3
    assert is_speech.mean() > 0.2


@pytest.mark.parametrize(("samples", "frames"), [(79, 0), (80, 1), (239, 1), (240, 2), (16_000, 100)])
def test_there_is_a_frame_for_each_ten_milliseconds(samples: int, frames: int) -> None:
    assert features(np.zeros(samples, np.float32)).shape == (frames, 80)


CHECKPOINT = Path(__file__).parents[2] / "embedded" / "lstm-transducer" / "checkpoint"

Array = npt.NDArray[np.float32]


class Counted:
    """The embedded model's networks, with a count of their calls."""

    def __init__(self, networks: Any) -> None:
        self._networks, self.chunks, self.predictions = networks, 0, 0
        self.context_size, self.zero_states, self.join = (
            networks.context_size, networks.zero_states, networks.join,
        )  # fmt: skip

    def encode(self, chunk: Array, states: Any) -> Any:
        assert chunk.shape == (9, 80)
        self.chunks += 1
        return self._networks.encode(chunk, states)

    def predict(self, tokens: list[int]) -> Array:
        assert len(tokens) == 2
        self.predictions += 1
        prediction: Array = self._networks.predict(tokens)
        return prediction


@pytest.fixture(scope="module")
def model() -> Any:
    """The embedded LSTM transducer."""
    from artifacts.icefall.checkpoint import load

    return load(CHECKPOINT)


@pytest.fixture
def networks(model: Any) -> Counted:
    """Its networks, run by torch."""
    from torch_networks import TorchNetworks

    return Counted(TorchNetworks(model))


@pytest.fixture(scope="module")
def clean(evaluation: Path) -> Corpus:
    """Clean speech."""
    return read_corpus(evaluation, ("clean",))


@torch.no_grad()
def _all_at_once(model: Any, waveform: Array) -> list[int]:
    """Greedy decoding of the whole recording, without chunks: the last encoder frame counts only with a spare frame."""
    extracted = features(waveform)
    frames = model.encoder(torch.from_numpy(extracted)[None], *model.zero_states())[0][0]
    frames = frames[: (len(extracted) - 10) // 4 + 1]
    tokens = [0, 0]
    for frame in frames:
        token = int(model.joiner(frame, model.decoder(torch.tensor([tokens[-2:]]))[0, 0]).argmax())
        if token not in (0, 2):
            tokens.append(token)
    return tokens[2:]


def test_chunks_give_the_tokens_of_the_whole_recording(model: Any, networks: Counted, clean: Corpus) -> None:
    for utterance in clean.utterances[:3]:
        waveform = np.pad(clean.waveform(utterance), (0, 8_000))
        tokens = transcribe(networks, waveform, tail_seconds=0.0)
        assert tokens == _all_at_once(model, waveform)
        assert len(tokens) > 5


@pytest.mark.parametrize("pieces", [2, 37])
def test_chunks_of_any_size_give_the_same_tokens(pieces: int, networks: Counted, clean: Corpus) -> None:
    waveform = clean.waveform(clean.utterances[3])
    stream = GreedyStream(networks)
    for piece in np.array_split(waveform, pieces):
        stream.accept(piece)
    stream.finish()
    assert stream.tokens == transcribe(networks, waveform, tail_seconds=0.0)


def test_words_are_transcribed_while_the_stream_goes_on(networks: Counted, clean: Corpus) -> None:
    waveform = clean.waveform(clean.utterances[3])
    stream = GreedyStream(networks)
    stream.accept(waveform[: 2 * len(waveform) // 3])
    begun = list(stream.tokens)
    stream.accept(waveform[2 * len(waveform) // 3 :])
    stream.finish()
    assert 2 < len(begun) < len(stream.tokens)
    assert stream.tokens[: len(begun)] == begun


@pytest.mark.parametrize(("frames", "chunks"), [(8, 0), (9, 0), (10, 1), (13, 1), (14, 2), (100, 23)])
def test_a_chunk_is_encoded_when_there_is_one_frame_more(frames: int, chunks: int, networks: Counted) -> None:
    transcribe(networks, np.zeros(160 * frames, np.float32), tail_seconds=0.0)
    assert networks.chunks == chunks


def test_the_predictor_runs_once_a_token_and_at_the_start(networks: Counted, clean: Corpus) -> None:
    tokens = transcribe(networks, clean.waveform(clean.utterances[0]))
    assert networks.predictions == 1 + len(tokens)


@pytest.mark.parametrize("silent", [0, 2])
def test_blank_and_unknown_are_not_tokens(silent: int, model: Any, networks: Counted, clean: Corpus) -> None:
    """With a logit above all others, every frame decodes to this id."""
    bias = torch.zeros(model.config.vocab_size)
    bias[silent] = 1e4
    networks.join = lambda frame, prediction: bias.numpy()
    assert transcribe(networks, clean.waveform(clean.utterances[0])) == []


def test_silence_gets_the_last_word_out(networks: Counted, clean: Corpus) -> None:
    with_tail = [transcribe(networks, clean.waveform(each)) for each in clean.utterances[:6]]
    without = [transcribe(networks, clean.waveform(each), tail_seconds=0.0) for each in clean.utterances[:6]]
    assert sum(map(len, with_tail)) > sum(map(len, without))


def test_speech_is_understood(networks: Counted, clean: Corpus) -> None:
    pieces = [line.split()[0] for line in (CHECKPOINT / "tokens.txt").read_text(encoding="utf-8").splitlines()]
    errors = []
    for utterance in clean.utterances[:10]:
        said = "".join(pieces[token] for token in transcribe(networks, clean.waveform(utterance)))
        hypothesis = said.replace("\u2581", " ").strip()
        errors.append(count_errors(utterance.text, hypothesis, ignore_case_and_punctuation=False))
    assert sum_errors(errors).words > 80
    assert sum_errors(errors).wer_percent < 10

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from artifacts.speech.corpus import Corpus, read_corpus
from artifacts.speech.kaldi_features import features
from artifacts.speech.streaming_rnnt import GreedyStream, transcribe
from artifacts.speech.word_errors import count, total

CHECKPOINT = Path(__file__).parents[2] / "recipes" / "lstm-transducer" / "checkpoint"

Array = npt.NDArray[np.float32]


class Counted:
    """The embedded model's networks, with a count of what is asked of them."""

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
    heard = features(waveform)
    frames = model.encoder(torch.from_numpy(heard)[None], *model.zero_states())[0][0]
    frames = frames[: (len(heard) - 10) // 4 + 1]
    tokens = [0, 0]
    for frame in frames:
        token = int(model.joiner(frame, model.decoder(torch.tensor([tokens[-2:]]))[0, 0]).argmax())
        if token not in (0, 2):
            tokens.append(token)
    return tokens[2:]


def test_chunks_say_what_the_whole_says(model: Any, networks: Counted, clean: Corpus) -> None:
    for utterance in clean.utterances[:3]:
        waveform = np.pad(clean.waveform(utterance), (0, 8_000))
        tokens = transcribe(networks, waveform, tail_seconds=0.0)
        assert tokens == _all_at_once(model, waveform)
        assert len(tokens) > 5


@pytest.mark.parametrize("pieces", [2, 37])
def test_pieces_of_any_size_say_the_same(pieces: int, networks: Counted, clean: Corpus) -> None:
    waveform = clean.waveform(clean.utterances[3])
    stream = GreedyStream(networks)
    for piece in np.array_split(waveform, pieces):
        stream.accept(piece)
    stream.finish()
    assert stream.tokens == transcribe(networks, waveform, tail_seconds=0.0)


def test_words_are_heard_while_they_are_said(networks: Counted, clean: Corpus) -> None:
    waveform = clean.waveform(clean.utterances[3])
    stream = GreedyStream(networks)
    stream.accept(waveform[: 2 * len(waveform) // 3])
    begun = list(stream.tokens)
    stream.accept(waveform[2 * len(waveform) // 3 :])
    stream.finish()
    assert 2 < len(begun) < len(stream.tokens)
    assert stream.tokens[: len(begun)] == begun


@pytest.mark.parametrize(("frames", "chunks"), [(8, 0), (9, 0), (10, 1), (13, 1), (14, 2), (100, 23)])
def test_a_chunk_is_taken_when_there_is_more_than_it(frames: int, chunks: int, networks: Counted) -> None:
    transcribe(networks, np.zeros(160 * frames, np.float32), tail_seconds=0.0)
    assert networks.chunks == chunks


def test_the_decoder_is_asked_once_a_token_and_at_the_start(networks: Counted, clean: Corpus) -> None:
    tokens = transcribe(networks, clean.waveform(clean.utterances[0]))
    assert networks.predictions == 1 + len(tokens)


@pytest.mark.parametrize("silent", [0, 2])
def test_blank_and_unknown_are_not_said(silent: int, model: Any, networks: Counted, clean: Corpus) -> None:
    """With a logit that beats all others the model says this one id on every frame."""
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
        errors.append(count(utterance.text, hypothesis, ignore_case_and_punctuation=False))
    assert total(errors).words > 80
    assert total(errors).wer_percent < 10

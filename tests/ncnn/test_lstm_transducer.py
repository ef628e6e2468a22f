from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.lstm_transducer import NcnnLstmTransducer, vocabulary_size
from artifacts.ncnn.param_file import find_net
from artifacts.speech.corpus import read_corpus
from artifacts.speech.sherpa_streaming import transcribe
from lstm_networks import DIM, HIDDEN, LAYERS, TOKENS, LstmNetworks
from torch_networks import TorchNetworks


@pytest.fixture(scope="module")
def networks(lstm: LstmNetworks) -> NcnnLstmTransducer:
    return NcnnLstmTransducer(lstm.tagged(), lstm.converted("predictor"), lstm.converted("joint"))


def test_sizes_are_read_from_the_networks(networks: NcnnLstmTransducer, lstm: LstmNetworks) -> None:
    assert networks.context_size == 2
    assert [state.shape for state in networks.zero_states()] == [(LAYERS, DIM), (LAYERS, HIDDEN)]
    assert vocabulary_size(lstm.converted("predictor")) == TOKENS


def test_a_chunk_after_another_is_what_torch_makes_of_it(networks: NcnnLstmTransducer, lstm: LstmNetworks) -> None:
    torch_networks = TorchNetworks(lstm.model)
    ours, theirs = networks.zero_states(), torch_networks.zero_states()
    features = np.random.default_rng(0).standard_normal((30, 9, 80), dtype=np.float32)
    for chunk in features:
        frames, ours = networks.encode(chunk, ours)
        expected, theirs = torch_networks.encode(chunk, theirs)
        assert frames.shape == expected.shape == (1, DIM)
        assert np.abs(frames - expected).max() < 1e-5
    prediction = networks.predict([7, 41])
    assert np.abs(prediction - torch_networks.predict([7, 41])).max() < 1e-6
    logits = networks.join(frames[0], prediction)
    assert np.abs(logits - torch_networks.join(expected[0], prediction)).max() < 1e-4


def test_speech_is_transcribed_token_for_token_as_with_torch(
    networks: NcnnLstmTransducer, lstm: LstmNetworks, evaluation: Path
) -> None:
    corpus = read_corpus(evaluation, ("clean",))
    waveform = corpus.waveform(corpus.utterances[0])
    tokens = transcribe(networks, waveform)
    assert tokens == transcribe(TorchNetworks(lstm.model), waveform)
    assert len(set(tokens)) > 2


def test_an_encoder_that_is_tagged_wrongly_is_refused(lstm: LstmNetworks, tmp_path: Path) -> None:
    shutil.copytree(lstm.tagged(), tmp_path / "encoder")
    param, _ = find_net(tmp_path / "encoder")
    param.write_text(param.read_text().replace(f" 3={HIDDEN}\n", " 3=999\n", 1))
    with pytest.raises(StepError, match=r"key 3 \(rnn_hidden_size\) is 999, the network has 128"):
        NcnnLstmTransducer(tmp_path / "encoder", lstm.converted("predictor"), lstm.converted("joint"))


def test_networks_in_each_others_places_are_refused(lstm: LstmNetworks) -> None:
    encoder, predictor, joint = lstm.tagged(), lstm.converted("predictor"), lstm.converted("joint")
    for folders, message in (
        ((predictor, predictor, joint), "predictor.ncnn.param: contains no LSTM layer"),
        ((encoder, joint, joint), "joint.ncnn.param: is not a stateless predictor"),
        ((encoder, predictor, predictor), "predictor.ncnn.param: has 1 inputs and 1 outputs, not 2 and 1"),
    ):
        with pytest.raises(StepError) as raised:
            NcnnLstmTransducer(*folders)
        assert raised.value.fact.startswith(message)
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: contains 0 Embed layers, not one"):
        vocabulary_size(joint)

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.runtime import find_net
from artifacts.ncnn.sherpa_recognizer import SherpaFiles, SherpaRecognizer
from artifacts.speech.corpus import read_corpus
from lstm_networks import HIDDEN, LstmNetworks

if TYPE_CHECKING:
    import numpy as np


@pytest.fixture(scope="module")
def speech(evaluation: Path) -> np.ndarray:
    corpus = read_corpus(evaluation, ("clean",))
    return corpus.waveform(corpus.utterances[0])


def files(lstm: LstmNetworks, encoder: tuple[Path, Path] | None = None) -> SherpaFiles:
    others = (find_net(lstm.converted(part)) for part in ("predictor", "joint"))
    encoder = encoder or find_net(lstm.tagged())
    return SherpaFiles(lstm.tokens() / "tokens.txt", *encoder, *(path for pair in others for path in pair))


def test_it_hears_the_same_each_time_and_nothing_in_nothing(lstm: LstmNetworks, speech: np.ndarray) -> None:
    with SherpaRecognizer(files(lstm)) as recognizer:
        first = recognizer.tokens(speech)
        assert recognizer.tokens(speech[:0]) == []
        assert recognizer.tokens(speech) == first
    assert len(set(first)) > 3
    assert not {0, 2} & set(first)


def edited(lstm: LstmNetworks, folder: Path, old: str, new: str) -> tuple[Path, Path]:
    shutil.copytree(lstm.tagged(), folder)
    param, weights = find_net(folder)
    text = param.read_text()
    assert old in text
    param.write_text(text.replace(old, new, 1))
    return param, weights


@pytest.mark.parametrize(("old", "new"), [("SherpaMetaData ", "Noop "), (" 0=3 1=3 ", " 0=4 1=3 ")])
def test_a_model_that_it_does_not_know_ends_another_process_than_this(
    lstm: LstmNetworks, tmp_path: Path, old: str, new: str
) -> None:
    encoder = edited(lstm, tmp_path / "encoder", old, new)
    with pytest.raises(StepError) as raised, SherpaRecognizer(files(lstm, encoder)):
        pass
    assert raised.value.fact.startswith("encoder.ncnn.param: sherpa-ncnn does not load it: ended by SIG")


def test_a_wrong_number_ends_it_while_it_runs(lstm: LstmNetworks, tmp_path: Path, speech: np.ndarray) -> None:
    encoder = edited(lstm, tmp_path / "encoder", " 1=3 ", " 1=2 ")
    with pytest.raises(StepError) as raised, SherpaRecognizer(files(lstm, encoder)) as recognizer:
        recognizer.tokens(speech)
    assert raised.value.fact.startswith("encoder.ncnn.param: sherpa-ncnn does not survive running it: ended by SIG")


def test_it_does_not_notice_every_wrong_hidden_size(lstm: LstmNetworks, tmp_path: Path, speech: np.ndarray) -> None:
    """Which is why the numbers are derived from the network, and held against it."""
    encoder = edited(lstm, tmp_path / "encoder", f" 3={HIDDEN}\n", f" 3={HIDDEN + 4}\n")
    with SherpaRecognizer(files(lstm)) as right, SherpaRecognizer(files(lstm, encoder)) as wrong:
        assert len(wrong.tokens(speech)) > 0
        assert right.tokens(speech)

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.param_file import find_net
from artifacts.ncnn.sherpa_ncnn import SherpaFiles, SherpaRecognizer, find_tokens, read_tokens
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


def test_it_transcribes_the_same_each_time_and_nothing_in_nothing(lstm: LstmNetworks, speech: np.ndarray) -> None:
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
def test_a_model_that_it_does_not_know_aborts_the_child_process(
    lstm: LstmNetworks, tmp_path: Path, old: str, new: str
) -> None:
    encoder = edited(lstm, tmp_path / "encoder", old, new)
    with pytest.raises(StepError) as raised, SherpaRecognizer(files(lstm, encoder)):
        pass
    assert raised.value.fact.startswith("encoder.ncnn.param: sherpa-ncnn fails to load it: ended by SIG")


def test_a_wrong_number_aborts_it_while_it_runs(lstm: LstmNetworks, tmp_path: Path, speech: np.ndarray) -> None:
    encoder = edited(lstm, tmp_path / "encoder", " 1=3 ", " 1=2 ")
    with pytest.raises(StepError) as raised, SherpaRecognizer(files(lstm, encoder)) as recognizer:
        recognizer.tokens(speech)
    assert raised.value.fact.startswith("encoder.ncnn.param: sherpa-ncnn fails to run it: ended by SIG")


def test_it_does_not_notice_every_wrong_hidden_size(lstm: LstmNetworks, tmp_path: Path, speech: np.ndarray) -> None:
    """So the numbers are derived from the network, and compared with it."""
    encoder = edited(lstm, tmp_path / "encoder", f" 3={HIDDEN}\n", f" 3={HIDDEN + 4}\n")
    with SherpaRecognizer(files(lstm)) as right, SherpaRecognizer(files(lstm, encoder)) as wrong:
        assert len(wrong.tokens(speech)) > 0
        assert right.tokens(speech)


GOOD = "<blk> 0\n<sos/eos> 1\n<unk> 2\n▁a 3\n"


def written(folder: Path, text: str) -> Path:
    (folder / "tokens.txt").write_text(text, encoding="utf-8")
    return folder / "tokens.txt"


def test_pieces_are_read_in_the_order_of_their_ids(tmp_path: Path) -> None:
    path = written(tmp_path, "▁a 3\n<unk> 2\n<sos/eos> 1\n<blk> 0\n")
    assert read_tokens(path, 4) == ["<blk>", "<sos/eos>", "<unk>", "▁a"]


def test_the_file_or_its_folder_may_be_given(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert find_tokens(tmp_path) == find_tokens(path) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<blk> 0\n<unk>\n", "tokens.txt:2: expected a piece and an id of its own, got '<unk>'"),
        ("<blk> 0\na b 1\n", "tokens.txt:2: expected a piece and an id of its own, got 'a b 1'"),
        ("<blk> 0\n<blk> 0\n", "tokens.txt:2: expected a piece and an id of its own, got '<blk> 0'"),
        ("<blk> 0\na -1\n", "tokens.txt:2: expected a piece and an id of its own, got 'a -1'"),
        ("<blk> 0\na ١\n", "tokens.txt:2: expected a piece and an id of its own, got 'a ١'"),
        ("<blk> 0\na 9999999999\n", "tokens.txt:2: expected a piece and an id of its own, got 'a 9999999999'"),
        (GOOD.replace("▁a 3\n", ""), "tokens.txt: contains 3 tokens, the predictor has 4"),
        (GOOD.replace(" 3", " 4"), "tokens.txt: contains 4 tokens, the predictor has 4"),
        (GOOD.replace("<unk>", "b"), "tokens.txt: token 2 is 'b', and sherpa-ncnn never emits it"),
        (GOOD.replace("<blk>", "b"), "tokens.txt: token 0 is 'b', and sherpa-ncnn never emits it"),
    ],
)
def test_tokens_that_would_be_misread_are_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StepError) as raised:
        read_tokens(written(tmp_path, text), 4)
    assert raised.value.fact == message


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"tokens\.txt: is missing"):
        read_tokens(find_tokens(tmp_path), 4)

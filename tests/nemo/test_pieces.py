from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StepError
from artifacts.nemo.archive import Archive, open_archive
from artifacts.nemo.model_config import ModelConfig, read_config
from artifacts.nemo.pieces import read_pieces


def test_pieces_are_the_vocabulary_of_the_restored_model(tiny_checkpoint: Path, restored_model: Any) -> None:
    with open_archive(tiny_checkpoint) as archive:
        pieces = read_pieces(archive, read_config(archive))
    assert pieces == list(restored_model.joint.vocabulary)
    assert any(piece.startswith("\u2581") for piece in pieces)


class _Damaged(Archive):
    """An archive whose tokenizer is cut short."""

    def __init__(self, whole: Archive) -> None:
        self.name, self._whole = whole.name, whole

    def read(self, member: str) -> bytes:
        return self._whole.read(member)[:1000]


def test_a_tokenizer_that_cannot_be_read_is_named(tiny_checkpoint: Path) -> None:
    with open_archive(tiny_checkpoint) as archive:
        config = read_config(archive)
        with pytest.raises(StepError, match=r"'tokenizer\.model' is not a SentencePiece model"):
            read_pieces(_Damaged(archive), config)


def test_a_tokenizer_of_another_model_is_refused(tiny_checkpoint: Path) -> None:
    with open_archive(tiny_checkpoint) as archive:
        config = read_config(archive)
        other: ModelConfig = config.model_copy(
            update={"decoder": config.decoder.model_copy(update={"vocab_size": 1024})}
        )
        with pytest.raises(StepError, match=r"the tokenizer has 128 pieces, decoder\.vocab_size is 1024"):
            read_pieces(archive, other)

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.nemo.archive import open_archive
from artifacts.nemo.model_config import ModelConfig, read_config
from artifacts.nemo.pieces import read_pieces
from faults.hostile_archives import tokenizers
from faults.hostile_checkpoints import TOKENIZER, Case, pack, read, unpack


def test_pieces_are_the_vocabulary_that_nemo_has_written(tiny_checkpoint: Path) -> None:
    with open_archive(tiny_checkpoint) as archive:
        pieces = read_pieces(archive, read_config(archive))
    assert pieces == read(unpack(tiny_checkpoint))["joint"]["vocabulary"]
    assert any(piece.startswith("\u2581") for piece in pieces)


@pytest.mark.parametrize("case", list(tokenizers()), ids=lambda case: case.name)
def test_a_tokenizer_that_is_not_lines_of_text_is_refused(case: Case, tmp_path: Path, tiny_checkpoint: Path) -> None:
    case.build(tiny_checkpoint, tmp_path / "h.nemo", tmp_path)
    with open_archive(tmp_path / "h.nemo") as archive, pytest.raises(StepError) as raised:
        read_pieces(archive, read_config(archive))
    assert case.told in raised.value.fact
    assert raised.value.fact.isprintable()


def test_a_tokenizer_that_is_cut_short_is_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    members = unpack(tiny_checkpoint)
    pack({**members, TOKENIZER: members[TOKENIZER][:1000]}, tmp_path / "h.nemo")
    with open_archive(tmp_path / "h.nemo") as archive:
        config = read_config(archive)
        with pytest.raises(StepError, match=r"'tokenizer\.model' is not a SentencePiece model"):
            read_pieces(archive, config)


def test_a_tokenizer_of_another_model_is_refused(tiny_checkpoint: Path) -> None:
    with open_archive(tiny_checkpoint) as archive:
        config = read_config(archive)
        other: ModelConfig = config.model_copy(
            update={"decoder": config.decoder.model_copy(update={"vocab_size": 1024})}
        )
        with pytest.raises(StepError, match=r"the tokenizer has 128 pieces, decoder\.vocab_size is 1024"):
            read_pieces(archive, other)

from __future__ import annotations

import random
from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.speech.decoding import Decoding, read_decoding
from artifacts.speech.tokens import detokenize, read_pieces


def test_pieces_are_joined_as_sentencepiece_joins_them(tokens: Path, model_meta: Path) -> None:
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokens / "tokenizer.model"))
    pieces = read_pieces(tokens / "vocab.txt", read_decoding(model_meta / "model_meta.json"))
    assert pieces[:-1] == [tokenizer.id_to_piece(i) for i in range(tokenizer.get_piece_size())]
    known = [i for i in range(len(pieces) - 1) if i != tokenizer.unk_id()]
    generator = random.Random(0)
    for _ in range(200):
        ids = generator.choices(known, k=generator.randrange(12))
        assert detokenize(pieces, ids) == tokenizer.decode(ids).strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 0\nb 2\n<blk> 2\n", "vocab.txt:2: expected a piece and the id 1, got 'b 2'"),
        ("a 0\nb c 1\n<blk> 2\n", "vocab.txt:2: expected a piece and the id 1, got 'b c 1'"),
        ("a 0\nb\n<blk> 2\n", "vocab.txt:2: expected a piece and the id 1, got 'b'"),
        ("a 0\nb 1\n", "vocab.txt: the last of 2 pieces is not '<blk>'"),
        ("a ٠\nb 1\n<blk> 2\n", "vocab.txt:1: expected a piece and the id 0, got 'a ٠'"),
        ("", "vocab.txt: the last of 0 pieces is not '<blk>'"),
        ("a 0\n<blk> 1\n", "vocab.txt: holds 2 pieces, model_meta.json says 3"),
    ],
)
def test_a_vocabulary_that_consumers_would_misread_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "vocab.txt").write_text(text, encoding="utf-8")
    with pytest.raises(StepError) as raised:
        read_pieces(tmp_path / "vocab.txt", Decoding(blank_id=2, durations=(0, 1)))
    assert raised.value.fact == message


def test_a_vocabulary_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"a 0\n\xff 1\n<blk> 2\n")
    with pytest.raises(StepError, match=r"vocab\.txt:2: is not UTF-8"):
        read_pieces(tmp_path / "vocab.txt", Decoding(2, ()))

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StepError
from artifacts.speech.decoding import DecodingSettings, detokenize, read_decoding, read_vocabulary

META = {"blank_id": 8, "duration_values": [0, 1, 2], "max_symbols": 5}


def write(folder: Path, meta: dict[str, Any]) -> Path:
    (folder / "model_meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return folder / "model_meta.json"


def test_the_checkpoint_is_a_tdt_of_five_durations(model_meta: Path) -> None:
    assert read_decoding(model_meta / "model_meta.json") == DecodingSettings(128, (0, 1, 2, 3, 4), 10)


def test_a_checkpoint_without_a_limit_gets_onnx_asrs(tmp_path: Path) -> None:
    assert read_decoding(write(tmp_path, META)) == DecodingSettings(8, (0, 1, 2), 5)
    assert read_decoding(write(tmp_path, META | {"max_symbols": None})) == DecodingSettings(8, (0, 1, 2), 10)


def test_a_joint_without_durations_is_that_of_an_rnn_t(tmp_path: Path) -> None:
    assert read_decoding(write(tmp_path, META | {"duration_values": []})) == DecodingSettings(8, (), 5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("duration_values", None, "duration_values: expected numbers of frames, got None"),
        ("duration_values", [0, -1], "duration_values: expected numbers of frames, got [0, -1]"),
        ("blank_id", "8", "blank_id: expected a number above 0, at most 1000000, got '8'"),
        ("blank_id", True, "blank_id: expected a number above 0, at most 1000000, got True"),
        ("blank_id", 10**12, "blank_id: expected a number above 0, at most 1000000, got 1000000000000"),
        ("max_symbols", 0, "max_symbols: expected a number above 0 or null, got 0"),
        ("max_symbols", 10**9, "max_symbols: expected a number above 0 or null, got 1000000000"),
    ],
)
def test_a_value_that_cannot_be_decoded_with_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(StepError) as raised:
        read_decoding(write(tmp_path, META | {key: value}))
    assert raised.value.fact == f"model_meta.json: {message}"


@pytest.mark.parametrize("key", list(META))
def test_a_missing_value_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(StepError, match=rf"model_meta\.json: {key}: is missing"):
        read_decoding(write(tmp_path, {name: META[name] for name in META if name != key}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="is missing"):
        read_decoding(tmp_path / "model_meta.json")


def test_pieces_are_joined_as_sentencepiece_joins_them(tokens: Path, model_meta: Path) -> None:
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokens / "tokenizer.model"))
    pieces = read_vocabulary(tokens / "vocab.txt", read_decoding(model_meta / "model_meta.json"))
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
        ("a 0\n<blk> 1\n", "vocab.txt: contains 2 pieces, model_meta.json says 3"),
    ],
)
def test_a_vocabulary_that_consumers_would_misread_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "vocab.txt").write_text(text, encoding="utf-8")
    with pytest.raises(StepError) as raised:
        read_vocabulary(tmp_path / "vocab.txt", DecodingSettings(blank_id=2, durations=(0, 1)))
    assert raised.value.fact == message


def test_a_vocabulary_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"a 0\n\xff 1\n<blk> 2\n")
    with pytest.raises(StepError, match=r"vocab\.txt:2: is not UTF-8"):
        read_vocabulary(tmp_path / "vocab.txt", DecodingSettings(2, ()))

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.nemo import pieces
from artifacts.nemo.archive import open_archive
from artifacts.steps.write_tokens import Params, run


@pytest.fixture(scope="session")
def tokens(exports: Any) -> Path:
    folder: Path = exports.folder / "tokens"
    return folder


@pytest.mark.parametrize(("params", "is_good"), [({}, True), ({"blank": "<blk>"}, False)])
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params(**params)
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_three_files_are_written_and_the_lines_counted(exports: Any, tokens: Path, restored_model: Any) -> None:
    assert {file.name for file in tokens.iterdir()} == {"vocab.txt", "tokens.txt", "tokenizer.model"}
    assert exports.metrics["tokens"] == {"tokens": restored_model.decoder.blank_idx + 1}


@pytest.mark.parametrize("name", ["vocab.txt", "tokens.txt"])
def test_each_token_has_a_line_with_its_id_and_blank_comes_last(name: str, tokens: Path, restored_model: Any) -> None:
    lines = (tokens / name).read_bytes().decode().split("\n")
    assert lines.pop() == ""
    want = [*restored_model.joint.vocabulary, "<blk>"]
    assert lines == [f"{piece} {number}" for number, piece in enumerate(want)]
    assert lines[-1] == f"<blk> {restored_model.decoder.blank_idx}"


def test_tokens_spell_what_the_tokenizer_says(tokens: Path) -> None:
    lines = (tokens / "vocab.txt").read_text(encoding="utf-8").splitlines()
    by_id = {int(number): piece for piece, number in (line.split(" ") for line in lines)}
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokens / "tokenizer.model"))
    text = "please call david on zero four two two five three"
    spelt = "".join(by_id[number] for number in tokenizer.EncodeAsIds(text))
    assert spelt.replace("\u2581", " ").strip() == text


def test_the_tokenizer_is_that_of_the_checkpoint_byte_for_byte(tokens: Path, tiny_checkpoint: Path) -> None:
    with open_archive(tiny_checkpoint) as archive:
        assert (tokens / "tokenizer.model").read_bytes() == archive.read("tokenizer.model", 1 << 20)


@pytest.mark.parametrize("piece", ["", "two words", "line\nend", "carriage\rreturn", "<blk>"])
def test_a_piece_that_would_break_its_line_is_refused(
    piece: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pieces = pieces.read_pieces
    monkeypatch.setattr(pieces, "read_pieces", lambda *given: [*read_pieces(*given)[:-1], piece])
    with pytest.raises(StepError, match=r"tiny\.nemo: token 127 is .*, which a line of vocab\.txt cannot contain"):
        run(tmp_path, Params(), checkpoint=tiny_checkpoint)

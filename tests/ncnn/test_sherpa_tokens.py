from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.sherpa_tokens import find_tokens, read_tokens

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
        (GOOD.replace("▁a 3\n", ""), "tokens.txt: holds 3 tokens, the predictor knows 4"),
        (GOOD.replace(" 3", " 4"), "tokens.txt: holds 4 tokens, the predictor knows 4"),
        (GOOD.replace("<unk>", "b"), "tokens.txt: the token 2 is 'b', and sherpa-ncnn never says it"),
        (GOOD.replace("<blk>", "b"), "tokens.txt: the token 0 is 'b', and sherpa-ncnn never says it"),
    ],
)
def test_tokens_that_would_be_misread_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StepError) as raised:
        read_tokens(written(tmp_path, text), 4)
    assert raised.value.fact == message


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"tokens\.txt: there is no such file"):
        read_tokens(find_tokens(tmp_path), 4)

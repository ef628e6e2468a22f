"""Write the tokens of a .nemo checkpoint as vocab.txt, tokens.txt and the SentencePiece model.

`vocab.txt` is for onnx-asr and programs with its layout, `tokens.txt` for sherpa-onnx. Both have the same content, in
UTF-8: a line `piece id` for each token, in the order of ids. The last token is `<blk>` with the id V, the number of
pieces. Pieces are those of SentencePiece: U+2581 begins a word. `<unk>` and other control pieces have lines too,
because they have ids. `tokenizer.model` is the SentencePiece model, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("sentencepiece",)
HEADLINE = ("tokens",)

BLANK = "<blk>"


class Params(StepParams):
    """The step has no params."""


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, int]:
    """Write `vocab.txt`, `tokens.txt` and `tokenizer.model` from the .nemo file; neither torch nor NeMo is needed.

    Returns the number of lines. Raises StepError if a piece would break its line, or if the checkpoint is not
    supported.
    """
    from artifacts.nemo.archive import open_archive
    from artifacts.nemo.model_config import read_config
    from artifacts.nemo.pieces import read_pieces, read_tokenizer

    with open_archive(checkpoint) as archive:
        config = read_config(archive)
        pieces = [*read_pieces(archive, config), BLANK]
        (out / "tokenizer.model").write_bytes(read_tokenizer(archive, config))
    for number, piece in enumerate(pieces):
        if not piece or any(mark in piece for mark in " \r\n") or (piece == BLANK) != (number == config.blank_id):
            raise StepError(
                f"{checkpoint.name}: token {number} is {piece!r:.80}, which a line of vocab.txt cannot contain",
                "give a checkpoint whose pieces have no space or line end, and are not called <blk>",
            )
    lines = "".join(f"{piece} {number}\n" for number, piece in enumerate(pieces))
    for name in ("vocab.txt", "tokens.txt"):
        (out / name).write_bytes(lines.encode())
    return {"tokens": len(pieces)}

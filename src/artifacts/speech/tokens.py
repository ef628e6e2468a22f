"""The pieces of a SentencePiece vocabulary, as `vocab.txt` lists them: one `piece id` a line, `<blk>` last."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from artifacts.errors import StepError
from artifacts.speech.decoding import Decoding
from artifacts.untrusted.read_input import read_text

BLANK = "<blk>"
WORD_BOUNDARY = "\u2581"


def read_pieces(vocab: Path, decoding: Decoding) -> list[str]:
    """Read the pieces in the order of their ids, blank included.

    Raises StepError, with the line, for one that is not `piece id` with the ids counted up from 0; if the blank is
    not the last piece; and if there are not as many as `decoding` says.
    """
    pieces: list[str] = []
    fix = "write the tokens again from the checkpoint"
    for number, line in enumerate(read_text(vocab, fix).split("\n")[:-1], start=1):
        piece, _, identifier = line.rpartition(" ")
        if not piece or " " in piece or identifier != str(number - 1):
            raise StepError(
                f"{vocab.name}:{number}: expected a piece and the id {number - 1}, got '{line[:200]}'",
                fix,
            )
        pieces.append(piece)
    if not pieces or pieces[-1] != BLANK:
        raise StepError(
            f"{vocab.name}: the last of {len(pieces)} pieces is not '{BLANK}'",
            fix,
        )
    if len(pieces) != decoding.blank_id + 1:
        raise StepError(
            f"{vocab.name}: holds {len(pieces)} pieces, model_meta.json says {decoding.blank_id + 1}",
            "give the tokens and the model_meta of one checkpoint",
        )
    return pieces


def detokenize(pieces: list[str], ids: Iterable[int]) -> str:
    """Join pieces as SentencePiece does: U+2581 starts a word, and the space before the first word is dropped."""
    return "".join(pieces[identifier] for identifier in ids).replace(WORD_BOUNDARY, " ").strip()

"""Read the pieces of a checkpoint's SentencePiece tokenizer."""

from __future__ import annotations

import unicodedata

from artifacts.errors import StepError
from artifacts.nemo.archive import Archive
from artifacts.nemo.model_config import ModelConfig

# Unicode categories of control characters and line ends.
_UNPRINTED = ("Cc", "Cs", "Zl", "Zp")
MAX_TOKENIZER_BYTES = 64 << 20


def read_tokenizer(archive: Archive, config: ModelConfig) -> bytes:
    """Return the SentencePiece model, byte for byte."""
    return archive.read(config.tokenizer.member, MAX_TOKENIZER_BYTES)


def read_pieces(archive: Archive, config: ModelConfig) -> list[str]:
    """Return the pieces in the order of their ids, blank not included. U+2581 (▁) begins a word.

    Raises StepError if the tokenizer cannot be read, or has another number of pieces than the decoder. It does so too
    for a piece that is not UTF-8, or has a control character or a line end.
    """
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor()
    location = f"{archive.name}: '{config.tokenizer.member}'"
    try:
        tokenizer.LoadFromSerializedProto(read_tokenizer(archive, config))
        count: int = tokenizer.GetPieceSize()
    except RuntimeError as error:
        raise StepError(
            f"{location} is not a SentencePiece model ({error!s:.200})", "fetch the checkpoint again"
        ) from None
    if count != config.blank_id:
        raise StepError(
            f"{archive.name}: the tokenizer has {count} pieces, decoder.vocab_size is {config.blank_id}",
            "give a checkpoint with the tokenizer that it was trained with",
        )
    return [_piece(tokenizer, number, location) for number in range(count)]


def _piece(tokenizer: object, number: int, location: str) -> str:
    fix = "give a checkpoint whose pieces are printable text"
    try:
        piece: str = tokenizer.IdToPiece(number)  # type: ignore[attr-defined]  # SentencePiece has no types
    except UnicodeDecodeError as error:
        raise StepError(f"{location}: piece {number} is not UTF-8: {error.object!r:.80}", fix) from None
    if any(unicodedata.category(character) in _UNPRINTED for character in piece):
        raise StepError(f"{location}: piece {number} is {piece!r:.80}, with a control character or a line end", fix)
    return piece

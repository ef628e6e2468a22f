"""The pieces of a checkpoint's SentencePiece tokenizer."""

from __future__ import annotations

from artifacts.errors import StepError
from artifacts.nemo.archive import Archive
from artifacts.nemo.model_config import ModelConfig


def read_pieces(archive: Archive, config: ModelConfig) -> list[str]:
    """The pieces in the order of their ids, blank not included. U+2581 (▁) begins a word.

    Raises StepError if their number is not the decoder's, or if the tokenizer cannot be read.
    """
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor()
    try:
        tokenizer.LoadFromSerializedProto(archive.read(config.tokenizer.member))
    except RuntimeError as error:
        raise StepError(
            f"{archive.name}: '{config.tokenizer.member}' is not a SentencePiece model ({error})",
            "fetch the checkpoint again",
        ) from None
    pieces: list[str] = [tokenizer.IdToPiece(i) for i in range(tokenizer.GetPieceSize())]
    if len(pieces) != config.blank_id:
        raise StepError(
            f"{archive.name}: the tokenizer has {len(pieces)} pieces, decoder.vocab_size is {config.blank_id}",
            "give a checkpoint whose tokenizer was not exchanged",
        )
    return pieces

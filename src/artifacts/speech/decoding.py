"""Read what decoding needs to know of a checkpoint: the classes of its joint, and its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import StepError
from artifacts.model.model_meta import ModelMeta
from artifacts.untrusted.read_input import read_text

# For a checkpoint without a limit; onnx-asr's default.
DEFAULT_MAX_SYMBOLS = 10
# A joint that never scores a blank best would run this many times for each frame.
LARGEST_MAX_SYMBOLS = 1000
LARGEST_DURATION = 10_000

BLANK = "<blk>"
WORD_BOUNDARY = "\u2581"


@dataclass(frozen=True)
class DecodingSettings:
    """Classes of a joint: `blank_id` pieces, the blank, and one class for each duration, if any; and a limit."""

    blank_id: int
    durations: tuple[int, ...]
    """The encoder frames of each duration class; empty for a joint without durations (RNN-T)."""
    max_symbols: int = DEFAULT_MAX_SYMBOLS
    """The most tokens on one frame."""


def read_decoding(model_meta: Path) -> DecodingSettings:
    """Read `blank_id`, `duration_values` (empty for RNN-T) and `max_symbols` from a `model_meta.json`.

    Raises StepError for a value that is missing or invalid.
    """
    fix = "give the model_meta of a transducer (TDT or RNN-T)"
    meta = ModelMeta(model_meta, fix)
    blank_id, durations, max_symbols = meta.size("blank_id"), meta.value("duration_values"), meta.value("max_symbols")
    if not isinstance(durations, list) or not all(_is_number(value, 0, LARGEST_DURATION) for value in durations):
        raise StepError(f"{model_meta.name}: duration_values: expected numbers of frames, got {durations!r}", fix)
    if max_symbols is None:
        max_symbols = DEFAULT_MAX_SYMBOLS
    if not _is_number(max_symbols, 1, LARGEST_MAX_SYMBOLS):
        raise StepError(f"{model_meta.name}: max_symbols: expected a number above 0 or null, got {max_symbols!r}", fix)
    return DecodingSettings(blank_id, tuple(durations), max_symbols)


def read_vocabulary(vocab: Path, decoding: DecodingSettings) -> list[str]:
    """Read the SentencePiece pieces of a `vocab.txt` in the order of their ids: one `piece id` a line, `<blk>` last.

    Raises StepError, with the line, for one that is not `piece id` with ids from 0 upwards; if the last piece is not
    the blank; and if their number is not that of `decoding`.
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
            f"{vocab.name}: contains {len(pieces)} pieces, model_meta.json says {decoding.blank_id + 1}",
            "give the tokens and the model_meta of one checkpoint",
        )
    return pieces


def detokenize(pieces: list[str], ids: Iterable[int]) -> str:
    """Join pieces as SentencePiece does: U+2581 starts a word, and the text does not start with a space."""
    return "".join(pieces[identifier] for identifier in ids).replace(WORD_BOUNDARY, " ").strip()


def _is_number(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

"""What decoding has to know of a checkpoint, read from its `model_meta.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import StepError
from artifacts.model.model_meta import ModelMeta

DEFAULT_MAX_SYMBOLS = 10
"""For a checkpoint that sets no limit; onnx-asr's default."""

# A joint that always says a token would be run this often for each frame.
LARGEST_MAX_SYMBOLS = 1000

LARGEST_DURATION = 10_000


@dataclass(frozen=True)
class Decoding:
    """The classes of a joint (`blank_id` pieces, the blank, one class per duration if it has them), and a limit."""

    blank_id: int
    durations: tuple[int, ...]
    """The encoder frames that each duration class stands for; none for a joint without durations (RNN-T)."""
    max_symbols: int = DEFAULT_MAX_SYMBOLS
    """The most tokens on one frame."""


def read_decoding(model_meta: Path) -> Decoding:
    """Read `blank_id`, `duration_values` (empty for RNN-T) and `max_symbols`.

    Raises StepError if one is missing or not what it must be.
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
    return Decoding(blank_id, tuple(durations), max_symbols)


def _is_number(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

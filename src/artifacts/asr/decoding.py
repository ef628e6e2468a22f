"""What decoding has to know of a checkpoint, read from its `model_meta.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import StepError

DEFAULT_MAX_SYMBOLS = 10
"""For a checkpoint that sets no limit; onnx-asr's default."""


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
    try:
        meta = json.loads(model_meta.read_text(encoding="utf-8"))
        blank_id, durations, max_symbols = (meta[key] for key in ("blank_id", "duration_values", "max_symbols"))
    except FileNotFoundError:
        raise StepError(f"{model_meta.name}: there is no such file in '{model_meta.parent.name}'", fix) from None
    except KeyError as error:
        raise StepError(f"{model_meta.name}: {error.args[0]}: is missing", fix) from None
    if not isinstance(blank_id, int) or blank_id < 1:
        raise StepError(f"{model_meta.name}: blank_id: expected a number above 0, got {blank_id!r}", fix)
    if not isinstance(durations, list) or not all(isinstance(value, int) and value >= 0 for value in durations):
        raise StepError(f"{model_meta.name}: duration_values: expected numbers of frames, got {durations!r}", fix)
    if max_symbols is None:
        max_symbols = DEFAULT_MAX_SYMBOLS
    if not isinstance(max_symbols, int) or max_symbols < 1:
        raise StepError(f"{model_meta.name}: max_symbols: expected a number above 0 or null, got {max_symbols!r}", fix)
    return Decoding(blank_id, tuple(durations), max_symbols)

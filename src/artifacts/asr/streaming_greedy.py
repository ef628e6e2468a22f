"""Greedy decoding of a transducer while its encoder frames arrive: what was said, and where it stands, is carried over.

The rules are those of `greedy`, for a joint with durations (TDT). A joint without them (RNN-T, Graves 2012, arXiv
1211.3711) is the same with fixed ones: a token takes no frame, a blank takes one. A duration may point beyond the
frames that are there; decoding then goes on inside a later chunk.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.asr.decoding import DEFAULT_MAX_SYMBOLS, Decoding, read_decoding
from artifacts.asr.transducer import Transducer
from artifacts.errors import StepError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def read_streaming_decoding(model_meta: Path) -> Decoding:
    """Read a `model_meta.json` whose model may have durations or, with an empty `duration_values`, none.

    Raises StepError if a key is missing or not what it must be.
    """
    if model_meta.is_file():
        meta = json.loads(model_meta.read_text(encoding="utf-8"))
        blank_id, max_symbols = meta.get("blank_id"), meta.get("max_symbols")
        if meta.get("duration_values") == [] and isinstance(blank_id, int):
            return Decoding(blank_id, (), max_symbols or DEFAULT_MAX_SYMBOLS)
    return read_decoding(model_meta)


class StreamingGreedy:
    """Decodes one stream at a time, from a `start` to the next."""

    def __init__(self, transducer: Transducer, decoding: Decoding) -> None:
        self._transducer = transducer
        self._decoding = decoding
        self.start()

    def start(self) -> None:
        """Begin a stream: nothing was said."""
        self._transducer.start()
        self.tokens: list[int] = []
        self._skip = 0
        self._tokens_on_frame = 0

    def accept(self, frames: npt.NDArray[np.float32]) -> None:
        """Take the next encoder frames `[T', D]`; what is said in them is behind what was, in `tokens`.

        Raises StepError if the joint has other classes than the decoding says.
        """
        blank_id, durations = self._decoding.blank_id, self._decoding.durations
        position = self._skip
        while position < len(frames):
            logits = self._transducer.logits(frames[position])
            if len(logits) != blank_id + 1 + len(durations):
                raise StepError(
                    f"the joint scores {len(logits)} classes; "
                    f"model_meta.json names {blank_id} tokens, a blank and {len(durations)} durations",
                    "give the joint and the model_meta of one checkpoint",
                )
            token = int(logits[: blank_id + 1].argmax())
            step = durations[int(logits[blank_id + 1 :].argmax())] if durations else int(token == blank_id)
            if token != blank_id:
                self._transducer.accept(token)
                self.tokens.append(token)
                self._tokens_on_frame += 1
            if step == 0 and (token == blank_id or self._tokens_on_frame == self._decoding.max_symbols):
                step = 1
            if step:
                position += step
                self._tokens_on_frame = 0
        self._skip = position - len(frames)

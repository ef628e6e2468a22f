"""Greedy decoding of a transducer, of all its encoder frames at once or as they arrive.

For a token-and-duration joint (TDT) the algorithm is that of Xu et al. 2023, "Efficient Sequence Transduction by
Jointly Predicting Tokens and Durations", with the rules of NeMo's default (label-looping, batched) greedy decoding,
which onnx-asr follows as well:

* token and duration are the best of their own part of the logits, each by itself;
* a blank leaves the predictor as it was and moves on by its duration, but by at least one frame;
* a token is kept, and moves on by its duration; with duration 0 the same frame is scored again;
* after `max_symbols` tokens on one frame, decoding moves on by one frame.

A joint without durations (RNN-T, Graves 2012, arXiv 1211.3711) is the same with fixed ones: a token takes no frame, a
blank takes one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifacts.errors import StepError
from artifacts.speech.decoding import Decoding
from artifacts.speech.transducer import Transducer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def decode(transducer: Transducer, frames: npt.NDArray[np.float32], decoding: Decoding) -> list[int]:
    """Decode the encoder frames `[T', D]` of one utterance into token ids. StepError if the joint has other classes."""
    greedy = Greedy(transducer, decoding)
    greedy.accept(frames)
    return greedy.tokens


class Greedy:
    """Decodes one stream at a time, from a `start` to the next: what was said, and where it stands, is carried over."""

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

        A duration may point beyond the frames that are there; decoding then goes on inside later ones. Raises StepError
        if the joint has other classes than the decoding says.
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

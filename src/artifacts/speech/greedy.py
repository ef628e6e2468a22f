"""Decode a transducer greedily, from all encoder frames at once or from chunks of them.

For a token-and-duration joint (TDT) the algorithm is that of Xu et al. 2023, "Efficient Sequence Transduction by
Jointly Predicting Tokens and Durations", with the rules of NeMo's default (label-looping, batched) greedy decoding,
which onnx-asr also follows:

* token and duration are each the best of their own part of the logits;
* a blank leaves the predictor's state unchanged and moves on by its duration, but by at least one frame;
* a token is appended, and moves on by its duration; with duration 0 the same frame is scored again;
* after `max_symbols` tokens on one frame, decoding moves on by one frame.

A joint without durations (RNN-T, Graves 2012, arXiv 1211.3711) is the same with fixed durations: 0 for a token, 1 for a
blank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from artifacts.errors import StepError
from artifacts.speech.decoding import DecodingSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class StatefulTransducer(Protocol):
    """The predictor and the joint of a model in any runtime, for one utterance at a time."""

    def start(self) -> None:
        """Begin an utterance: zero states, and the blank as the token before the first."""

    def logits(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Score an encoder frame `[D]` after the accepted tokens: `[V + 1 + durations]`, the blank at index V."""

    def accept(self, token: int) -> None:
        """Append the token to the hypothesis, at the frame that was scored last."""


def decode(transducer: StatefulTransducer, frames: npt.NDArray[np.float32], decoding: DecodingSettings) -> list[int]:
    """Decode the encoder frames `[T', D]` of one utterance into token ids. Raises StepError as `Greedy.accept` does."""
    greedy = Greedy(transducer, decoding)
    greedy.accept(frames)
    return greedy.tokens


class Greedy:
    """Decode streams, one at a time, from one `start` to the next; `tokens` are the ids so far."""

    def __init__(self, transducer: StatefulTransducer, decoding: DecodingSettings) -> None:
        self._transducer = transducer
        self._decoding = decoding
        self.start()

    def start(self) -> None:
        """Begin a stream, without tokens."""
        self._transducer.start()
        self.tokens: list[int] = []
        self._skip = 0
        self._tokens_on_frame = 0

    def accept(self, frames: npt.NDArray[np.float32]) -> None:
        """Decode the next encoder frames `[T', D]` and append their ids to `tokens`.

        A duration may point beyond the last frame; decoding then goes on inside later ones. Raises StepError if the
        joint does not have the classes of the decoding settings.
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

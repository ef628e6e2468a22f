"""Greedy decoding of a token-and-duration transducer (TDT).

The algorithm is that of Xu et al. 2023, "Efficient Sequence Transduction by Jointly Predicting Tokens and Durations",
with the rules of NeMo's default (label-looping, batched) greedy decoding, which onnx-asr follows as well:

* token and duration are the best of their own part of the logits, each by itself;
* a blank leaves the predictor as it was and moves on by its duration, but by at least one frame;
* a token is kept, and moves on by its duration; with duration 0 the same frame is scored again;
* after `max_symbols` tokens on one frame, decoding moves on by one frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifacts.asr.decoding import Decoding
from artifacts.asr.transducer import Transducer
from artifacts.errors import StepError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def decode(transducer: Transducer, frames: npt.NDArray[np.float32], decoding: Decoding) -> list[int]:
    """Decode the encoder frames `[T', D]` of one utterance into token ids. StepError if the joint has other classes."""
    blank_id, durations = decoding.blank_id, decoding.durations
    transducer.start()
    tokens: list[int] = []
    position = 0
    tokens_on_frame = 0
    while position < len(frames):
        logits = transducer.logits(frames[position])
        if len(logits) != blank_id + 1 + len(durations):
            raise StepError(
                f"the joint scores {len(logits)} classes; "
                f"model_meta.json names {blank_id} tokens, a blank and {len(durations)} durations",
                "give the joint and the model_meta of one checkpoint",
            )
        token = int(logits[: blank_id + 1].argmax())
        step = durations[int(logits[blank_id + 1 :].argmax())]
        if token != blank_id:
            transducer.accept(token)
            tokens.append(token)
            tokens_on_frame += 1
        if step == 0 and (token == blank_id or tokens_on_frame == decoding.max_symbols):
            step = 1
        if step:
            position += step
            tokens_on_frame = 0
    return tokens

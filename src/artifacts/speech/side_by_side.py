"""Two decoder_joint models on the same inputs, step by step along the reference's own greedy path.

The path's frames, tokens and states are those of real speech, which states made up for the purpose are not; and since
every step starts from the reference's states, a difference is one step's and does not pile up.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import StepError
from artifacts.runtime.sessions import open_session, run_session
from artifacts.speech.decoding import Decoding
from artifacts.speech.drift import DriftTable
from artifacts.speech.transducer import FusedTransducer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class SideBySide(FusedTransducer):
    """The reference, for `greedy.decode`; each step of it is also run by `model`, and the drift goes to `table`."""

    def __init__(self, model: Path, reference: Path, threads: int, decoding: Decoding, table: DriftTable) -> None:
        super().__init__(reference, threads, decoding.blank_id)
        self._model_name = model.name
        self._model = open_session(model, threads)
        self._blank_id = decoding.blank_id
        self._table = table
        self.steps = 0
        self.steps_with_other_choice = 0
        """Steps whose best token, or best duration where there are any, is another one than the reference's."""

    def logits(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        feeds = self.feeds(frame)
        theirs = run_session(self.session, self.name, self.OUTPUTS, feeds)
        ours = run_session(self._model, self._model_name, self.OUTPUTS, feeds)
        for name, our_values, their_values in zip(self.OUTPUTS, ours, theirs, strict=True):
            if our_values.shape != their_values.shape:
                raise StepError(
                    f"{self._model_name}: gives '{name}' {list(our_values.shape)}, "
                    f"the reference {list(their_values.shape)}",
                    "compare two builds of one model",
                )
            self._table.add(name, our_values, their_values)
        scores: npt.NDArray[np.float32] = theirs[0].reshape(-1)
        self.steps += 1
        self.steps_with_other_choice += self._choice(ours[0].reshape(-1)) != self._choice(scores)
        self._next_states = theirs[1:]
        return scores

    def _choice(self, scores: npt.NDArray[np.float32]) -> tuple[int, int]:
        tokens = self._blank_id + 1
        return int(scores[:tokens].argmax()), int(scores[tokens:].argmax()) if len(scores) > tokens else 0

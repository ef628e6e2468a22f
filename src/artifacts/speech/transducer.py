"""The predictor and the joint of a transducer over ONNX Runtime, in two forms, as `artifacts.speech.greedy` calls them.

The fused `decoder_joint` graph computes both at each step. A separate predictor runs once a token instead, because a
blank leaves its state and its output unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.runtime.sessions import Output, open_session, require_values, run_session, zeros_of

_INTEGERS: dict[str, type[np.signedinteger[Any]]] = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}


class FusedTransducer:
    """A `decoder_joint` graph, with NeMo's names.

    `encoder_outputs [B, D, T]` f32, `targets [B, U]` and `target_length [B]` (i32 or i64), `input_states_1` and
    `input_states_2 [L, B, H]` f32 → `outputs [B, T, U, V + 1 + durations]`, `output_states_1`, `output_states_2`.
    """

    OUTPUTS: ClassVar[Mapping[str, Output]] = {
        "outputs": Output("f", 4), "output_states_1": Output("f", 3), "output_states_2": Output("f", 3),
    }  # fmt: skip

    def __init__(self, model: Path, threads: int, blank_id: int) -> None:
        self.name = model.name
        self.session = open_session(model, threads)
        inputs = {value.name: value for value in self.session.get_inputs()}
        names = ("encoder_outputs", "targets", "target_length", "input_states_1", "input_states_2")
        require_values(self.session, model, names, self.OUTPUTS)
        self._zeros = [zero_state(inputs[name], model) for name in ("input_states_1", "input_states_2")]
        self._blank = np.array([[blank_id]], dtype=_integer(inputs["targets"], model))
        self._one = np.array([1], dtype=_integer(inputs["target_length"], model))
        self.start()

    def start(self) -> None:
        self._states = self._next_states = self._zeros
        self._token = self._blank

    def feeds(self, frame: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Return the graph's inputs that score `frame` after the accepted tokens."""
        return {
            "encoder_outputs": frame.reshape(1, -1, 1),
            "targets": self._token,
            "target_length": self._one,
            "input_states_1": self._states[0],
            "input_states_2": self._states[1],
        }

    def logits(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        outputs, *self._next_states = run_session(self.session, self.name, self.OUTPUTS, self.feeds(frame))
        scores: npt.NDArray[np.float32] = outputs.reshape(-1)
        return scores

    def accept(self, token: int) -> None:
        self._states = self._next_states
        self._token = np.full_like(self._blank, token)


PREDICTED = {"g": Output("f", 3), "h_out": Output("f", 3), "c_out": Output("f", 3)}
JOINED = {"joint_output": Output("f", 4)}


class SeparateTransducer:
    """A predictor and a joint in separate graphs.

    Predictor: `y [B, U]` i64, `h` and `c [L, B, H]` f32 → `g [B, H, U]`, `h_out`, `c_out`. Joint:
    `encoder_output [B, D, T]`, `predictor_output [B, H, U]` → `joint_output [B, T, U, V + 1 + durations]`.
    """

    def __init__(self, predictor: Path, joint: Path, threads: int, blank_id: int) -> None:
        self._names = predictor.name, joint.name
        self._predictor = open_session(predictor, threads)
        self._joint = open_session(joint, threads)
        require_values(self._predictor, predictor, ("y", "h", "c"), ("g", "h_out", "c_out"))
        require_values(self._joint, joint, ("encoder_output", "predictor_output"), ("joint_output",))
        inputs = {value.name: value for value in self._predictor.get_inputs()}
        self._zeros = [zero_state(inputs[name], predictor) for name in ("h", "c")]
        self._integer = _integer(inputs["y"], predictor)
        self._blank_id = blank_id
        self.start()

    def start(self) -> None:
        self._states = self._zeros
        self.accept(self._blank_id)

    def logits(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        feeds = {"encoder_output": frame.reshape(1, -1, 1), "predictor_output": self._prediction}
        (outputs,) = run_session(self._joint, self._names[1], JOINED, feeds)
        scores: npt.NDArray[np.float32] = outputs.reshape(-1)
        return scores

    def accept(self, token: int) -> None:
        feeds = {"y": np.array([[token]], dtype=self._integer), "h": self._states[0], "c": self._states[1]}
        self._prediction, *self._states = run_session(self._predictor, self._names[0], PREDICTED, feeds)


def zero_state(value: Any, model: Path) -> npt.NDArray[np.float32]:
    """Return zeros for a state input and one utterance: float32 `[L, 1, H]`, with L and H of the graph."""
    layers, _, hidden = value.shape if len(value.shape) == 3 else (None, None, None)
    if not isinstance(layers, int) or not isinstance(hidden, int):
        raise StepError(
            f"{model.name}: input '{value.name}' has the shape {value.shape}; its dimensions 0 and 2 must be numbers",
            "export the model with static state dimensions",
        )
    return zeros_of(value, (layers, 1, hidden), model.name)


def _integer(value: Any, model: Path) -> type[np.signedinteger[Any]]:
    """Return the integer dtype of an input. Raises StepError for another one."""
    if value.type not in _INTEGERS:
        raise StepError(
            f"{model.name}: input '{value.name}' is {value.type}, needs {' or '.join(_INTEGERS)}",
            "give the artifact that the step's input is named for",
        )
    return _INTEGERS[value.type]

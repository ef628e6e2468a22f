"""A FastConformer-TDT over ncnn: encoder, predictor and joint, for greedy decoding.

The networks are `UnbatchedEncoder`, `UnbatchedPredictor` and `UnbatchedJoint`, converted: ncnn's matrices have no batch
axis. Two facts come from the `.param` files, because ncnn does not report them: the states' shapes, and the number of
frames that the encoder's table of relative positions allows. Beyond that number ncnn cuts the table short and goes on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.ncnn.param_file import Layer, ParamFile, find_net, read_param
from artifacts.ncnn.runtime import Net

SUBSAMPLING_FACTOR = 8

Array = npt.NDArray[np.float32]


class NcnnEncoder:
    """`in0` features `[F, T]` → `out0` `[D, T']`, for one whole utterance."""

    def __init__(self, folder: Path, threads: int = 1, *, net: Net | None = None) -> None:
        """Open the network in an artifact's folder, or take it opened as `net`.

        Raises StepError unless it is an encoder with a table of relative positions.
        """
        param, weights = find_net(folder)
        self._name = param.name
        self._net = net or Net(param, weights, threads=threads)
        _require_ends(self._net, param.name, inputs=1, outputs=1)
        self.max_frames = max_encoder_frames(read_param(param), param.name)

    def frames(self, features: Array, lengths: npt.NDArray[np.int64]) -> Array:
        """Encode features `[1, F, T]`, of which `lengths` `[1]` are valid, into frames `[T', D]`.

        The features after the valid ones are cut off, because the network has no mask. Raises StepError if the
        utterance is longer than the table of positions.
        """
        valid = features[0, :, : int(lengths[0])]
        wanted = -(-valid.shape[1] // SUBSAMPLING_FACTOR)
        if wanted > self.max_frames:
            raise StepError(
                f"{self._name}: {wanted} encoder frames, and the table of positions allows {self.max_frames}",
                "trace the encoder with a larger max_seconds, or leave the recording out",
            )
        output = self._net.run({"in0": valid})["out0"]
        if output.shape[-1] != wanted:
            raise StepError(
                f"{self._name}: gives {output.shape[-1]} frames for {valid.shape[1]} features, not {wanted}",
                f"give a FastConformer's encoder, which makes one frame of {SUBSAMPLING_FACTOR} features",
            )
        return np.ascontiguousarray(output.T)


class NcnnTransducer:
    """A predictor and a joint, as `artifacts.speech.greedy` calls them.

    Predictor: `in0` the token, `in1` and `in2` states `[L, H]` → `out0` `[1, H]`, `out1`, `out2`. Joint: `in0` the
    frame `[D]`, `in1` the prediction `[H]` → `out0` `[V + 1 + durations]`.
    """

    def __init__(
        self, predictor: Path, joint: Path, blank_id: int, threads: int = 1, *, joint_net: Net | None = None
    ) -> None:
        """Open the networks in two artifacts' folders, or take the joint opened as `joint_net`.

        Raises StepError unless they have the inputs and outputs of these two.
        """
        param, weights = find_net(predictor)
        joint_param, joint_weights = find_net(joint)
        self._predictor = Net(param, weights, threads=threads)
        self._joint = joint_net or Net(joint_param, joint_weights, threads=threads)
        _require_ends(self._predictor, param.name, inputs=3, outputs=3)
        _require_ends(self._joint, joint_param.name, inputs=2, outputs=1)
        lstms = _layers(read_param(param), "LSTM", param.name)
        self._zeros = np.zeros((len(lstms), lstms[0].integer(0)), np.float32)
        self._blank_id = blank_id
        self.start()

    def start(self) -> None:
        """Begin an utterance: zero states, and the blank as the token before the first."""
        self._states = (self._zeros, self._zeros)
        self.accept(self._blank_id)

    def logits(self, frame: Array) -> Array:
        """Score an encoder frame `[D]` after the accepted tokens: `[V + 1 + durations]`, the blank at index V."""
        return self._joint.run({"in0": frame, "in1": self._prediction})["out0"].reshape(-1)

    def accept(self, token: int) -> None:
        """Append the token to the hypothesis, at the frame that was scored last."""
        feeds = {"in0": np.array([token], np.int32), "in1": self._states[0], "in2": self._states[1]}
        made = self._predictor.run(feeds)
        self._prediction, self._states = made["out0"].reshape(-1), (made["out1"], made["out2"])


def max_encoder_frames(file: ParamFile, location: str) -> int:
    """Return how many encoder frames the table of relative positions allows: N for its 2 N - 1 rows.

    Raises StepError if the network crops no such table: it is another network, or its length was fixed by conversion.
    """
    cropped = {name for layer in file.layers if layer.type == "Crop" for name in layer.inputs}
    tables = [each for each in _layers(file, "MemoryData", location) if cropped & set(each.outputs)]
    if len(tables) != 1:
        raise StepError(
            f"{location}: crops {len(tables)} tables of relative positions, not one",
            "give a FastConformer's encoder, converted with two lengths; with one, it runs at that length only",
        )
    return (tables[0].integer(1) + 1) // 2


def _layers(file: ParamFile, kind: str, location: str) -> list[Layer]:
    found = [layer for layer in file.layers if layer.type == kind]
    if not found:
        raise StepError(f"{location}: contains no {kind} layer", "give the artifact that the input is named for")
    return found


def _require_ends(net: Net, name: str, *, inputs: int, outputs: int) -> None:
    if (len(net.inputs), len(net.outputs)) != (inputs, outputs):
        raise StepError(
            f"{name}: has {len(net.inputs)} inputs and {len(net.outputs)} outputs, not {inputs} and {outputs}",
            "give the artifact that the input is named for",
        )

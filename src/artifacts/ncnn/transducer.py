"""A FastConformer-TDT over ncnn: the encoder, and predictor and joint as greedy decoding asks for them.

The three networks are `UnbatchedEncoder`, `UnbatchedPredictor` and `UnbatchedJoint`, converted; ncnn's matrices leave
the batch of 1 out. What ncnn does not tell is read from the `.param` files: how many frames the encoder's table of
relative positions allows (with more, ncnn cuts the table short and goes on with what it has), and the states' shapes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.ncnn.param_file import Layer, ParamFile, read_param
from artifacts.ncnn.runtime import Net, find_net

SUBSAMPLING_FACTOR = 8

Array = npt.NDArray[np.float32]


class Encoder:
    """`in0` features `[F, T]` → `out0` `[D, T']`, for one utterance in its full length."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Open the network in an artifact's folder. Raises StepError if it is no encoder with a table of positions."""
        param, weights = find_net(folder)
        self._name = param.name
        self._net = _open(param, weights, threads, inputs=1, outputs=1)
        self.max_frames = max_encoder_frames(read_param(param), param.name)

    def frames(self, features: Array, lengths: npt.NDArray[np.int64]) -> Array:
        """Encode the valid ones of features `[1, F, T]`, of which `lengths` `[1]` says how many, into frames `[T', D]`.

        What follows the valid ones is cut off, as nothing hides it from the network. Raises StepError if the utterance
        is longer than the table of positions.
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
                "give a FastConformer's encoder, which makes one frame of 8",
            )
        return np.ascontiguousarray(output.T)


class Transducer:
    """A predictor and a joint, as `artifacts.speech.greedy` runs them.

    Predictor: `in0` the token, `in1` and `in2` states `[L, H]` → `out0` `[1, H]`, `out1`, `out2`. Joint: `in0` the
    frame `[D]`, `in1` the prediction `[H]` → `out0` `[V + 1 + durations]`.
    """

    def __init__(self, predictor: Path, joint: Path, threads: int, blank_id: int) -> None:
        """Open the networks in two artifacts' folders. Raises StepError if they are not these two."""
        param, weights = find_net(predictor)
        self._predictor = _open(param, weights, threads, inputs=3, outputs=3)
        self._joint = _open(*find_net(joint), threads, inputs=2, outputs=1)
        lstms = _layers(read_param(param), "LSTM", param.name)
        self._zeros = np.zeros((len(lstms), lstms[0].integer(0)), np.float32)
        self._blank_id = blank_id
        self.start()

    def start(self) -> None:
        """Forget the tokens: zero states, and the blank as the token before the first."""
        self._states = (self._zeros, self._zeros)
        self.accept(self._blank_id)

    def logits(self, frame: Array) -> Array:
        """Score an encoder frame `[D]` after the accepted tokens: `[V + 1 + durations]`, the blank at index V."""
        return self._joint.run({"in0": frame, "in1": self._prediction})["out0"].reshape(-1)

    def accept(self, token: int) -> None:
        """Take the token as spoken, at the frame that was scored last."""
        feeds = {"in0": np.array([token], np.int32), "in1": self._states[0], "in2": self._states[1]}
        made = self._predictor.run(feeds)
        self._prediction, self._states = made["out0"].reshape(-1), (made["out1"], made["out2"])


def max_encoder_frames(file: ParamFile, place: str) -> int:
    """How many encoder frames the table of relative positions allows: N of its 2 N - 1 rows.

    Raises StepError if the network cuts no such table: it is none, or its length was fixed when it was converted.
    """
    cut = {name for layer in file.layers if layer.type == "Crop" for name in layer.inputs}
    tables = [each for each in _layers(file, "MemoryData", place) if cut & set(each.outputs)]
    if len(tables) != 1:
        raise StepError(
            f"{place}: cuts {len(tables)} tables of relative positions, not one",
            "give a FastConformer's encoder, converted with two lengths: with one, it is good for that alone",
        )
    return (tables[0].integer(1) + 1) // 2


def _layers(file: ParamFile, kind: str, place: str) -> list[Layer]:
    found = [layer for layer in file.layers if layer.type == kind]
    if not found:
        raise StepError(f"{place}: holds no {kind} layer", "give the artifact that the input is named for")
    return found


def _open(param: Path, weights: Path, threads: int, *, inputs: int, outputs: int) -> Net:
    net = Net(param, weights, threads=threads)
    if (len(net.inputs), len(net.outputs)) != (inputs, outputs):
        raise StepError(
            f"{param.name}: has {len(net.inputs)} inputs and {len(net.outputs)} outputs, not {inputs} and {outputs}",
            "give the artifact that the input is named for",
        )
    return net

"""Run an LSTM transducer in ncnn, with the methods that `artifacts.speech.sherpa_streaming` calls.

sherpa-ncnn runs the same files in the same way. ncnn's matrices have no batch axis. Two facts come from the `.param`
files, because ncnn does not report them: the sizes of the states, and how many tokens the predictor reads. If an
encoder has sherpa-ncnn's metadata, the metadata must agree with the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.ncnn.param_file import METADATA_TYPE, ParamFile, find_net, read_param
from artifacts.ncnn.runtime import Net, open_net
from artifacts.ncnn.sherpa_metadata import Metadata, derive_metadata, read_metadata

Array = npt.NDArray[np.float32]
States = tuple[Array, Array]

_CONTEXT_TYPES = ("Convolution1D", "ConvolutionDepthWise1D")


class NcnnLstmTransducer:
    """Encoder, predictor and joint in ncnn: opened from their artifacts' folders, or passed as open `nets`."""

    def __init__(
        self,
        encoder: Path,
        predictor: Path,
        joint: Path,
        threads: int = 1,
        nets: Sequence[Net] | None = None,
        *,
        as_sherpa: bool = False,
    ) -> None:
        """With `as_sherpa`, predictor and joint store values between layers as fp16 where the processor can.

        That is ncnn's default, and sherpa-ncnn turns it off for the encoder alone. fp16 storage may decide between two
        tokens with nearly equal scores. Raises StepError unless these are an encoder, a predictor and a joint that ncnn
        opens.
        """
        params = [find_net(folder)[0] for folder in (encoder, predictor, joint)]
        self.metadata = _metadata(read_param(params[0]), params[0].name)
        self.context_size = _context_size(read_param(params[1]), params[1].name)
        if nets is None:
            nets = [
                open_net(*find_net(folder), threads=threads, fp16_storage=as_sherpa and folder != encoder)
                for folder in (encoder, predictor, joint)
            ]
        self._encoder, self._predictor, self._joint = nets
        for net, path, inputs in ((self._predictor, params[1], 1), (self._joint, params[2], 2)):
            if (len(net.inputs), len(net.outputs)) != (inputs, 1):
                raise StepError(
                    f"{path.name}: has {len(net.inputs)} inputs and {len(net.outputs)} outputs, not {inputs} and 1",
                    "give the artifact that the input is named for",
                )

    def zero_states(self) -> States:
        """Return the states h `[L, D]` and c `[L, H]` at the start of a stream."""
        _, layers, encoder_dim, hidden = self.metadata
        return np.zeros((layers, encoder_dim), np.float32), np.zeros((layers, hidden), np.float32)

    def encode(self, features: Array, states: States) -> tuple[Array, States]:
        """Encode features `[T, F]` after `states` into frames `[T', D]`; return them with the next states."""
        length = np.array([len(features)], np.float32)
        feeds = {"in0": features, "in1": length, "in2": states[0], "in3": states[1]}
        made = self._encoder.run(feeds, ("out0", "out2", "out3"))
        return made["out0"], (made["out2"], made["out3"])

    def predict(self, tokens: list[int]) -> Array:
        """Return the predictor's output `[D']` for the last tokens."""
        return self._predictor.run({"in0": np.array(tokens, np.int32)}, ("out0",))["out0"].reshape(-1)

    def join(self, frame: Array, prediction: Array) -> Array:
        """Return the logits `[V]` of an encoder frame `[D]` and the predictor's output."""
        return self._joint.run({"in0": frame, "in1": prediction}, ("out0",))["out0"].reshape(-1)


def vocabulary_size(predictor: Path) -> int:
    """Return the size of a predictor's vocabulary. Raises StepError for another network."""
    param, _ = find_net(predictor)
    found = [layer.integer(1) for layer in read_param(param).layers if layer.type == "Embed"]
    if len(found) != 1:
        raise StepError(f"{param.name}: contains {len(found)} Embed layers, not one", "give the predictor")
    return found[0]


def _metadata(file: ParamFile, location: str) -> Metadata:
    is_tagged = any(layer.type == METADATA_TYPE for layer in file.layers)
    return read_metadata(file, location) if is_tagged else derive_metadata(file, location)


def _context_size(file: ParamFile, location: str) -> int:
    """Return how many tokens the predictor reads: the width of its convolution over tokens, or 1 if it has none."""
    types = [layer.type for layer in file.layers]
    if "Embed" not in types or "LSTM" in types:
        raise StepError(f"{location}: is not a stateless predictor", "give the predictor of an LSTM transducer")
    return next((layer.integer(1) for layer in file.layers if layer.type in _CONTEXT_TYPES), 1)

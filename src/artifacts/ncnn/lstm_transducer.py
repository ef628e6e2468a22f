"""An LSTM transducer over ncnn, as `artifacts.speech.streaming_rnnt` calls one: what sherpa-ncnn does with its files.

ncnn's matrices leave the batch of 1 out. What ncnn does not tell is read from the `.param` files: the states' sizes,
and how many tokens the predictor sees. An encoder that is tagged for sherpa-ncnn has to be tagged rightly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.ncnn.isolated import open_net
from artifacts.ncnn.param_file import ParamFile, read_param
from artifacts.ncnn.runtime import METADATA_TYPE, Net, find_net
from artifacts.ncnn.sherpa_metadata import Metadata, derive_metadata, read_metadata

Array = npt.NDArray[np.float32]
States = tuple[Array, Array]

_CONTEXT_TYPES = ("Convolution1D", "ConvolutionDepthWise1D")


class LstmTransducer:
    """The three networks. Their artifacts' folders are enough to open them; opened ones may be given instead."""

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
        """With `as_sherpa` predictor and joint pass fp16 from layer to layer where the processor can, as there.

        That is ncnn's default, which sherpa-ncnn turns off for the encoder alone: where two tokens score alike, it may
        decide between them. Raises StepError if these are not an encoder, a predictor and a joint, or ncnn does not
        open them.
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
        """h `[L, D]` and c `[L, H]` of a stream that has heard nothing."""
        _, layers, encoder_dim, hidden = self.metadata
        return np.zeros((layers, encoder_dim), np.float32), np.zeros((layers, hidden), np.float32)

    def encode(self, features: Array, states: States) -> tuple[Array, States]:
        """Features `[T, F]` and states → encoder frames `[T', D]`, and the states after them."""
        length = np.array([len(features)], np.float32)
        feeds = {"in0": features, "in1": length, "in2": states[0], "in3": states[1]}
        made = self._encoder.run(feeds, ("out0", "out2", "out3"))
        return made["out0"], (made["out2"], made["out3"])

    def predict(self, tokens: list[int]) -> Array:
        """The last tokens → the predictor's output `[D']`."""
        return self._predictor.run({"in0": np.array(tokens, np.int32)}, ("out0",))["out0"].reshape(-1)

    def join(self, frame: Array, prediction: Array) -> Array:
        """An encoder frame `[D]` and the predictor's output → logits `[V]`."""
        return self._joint.run({"in0": frame, "in1": prediction}, ("out0",))["out0"].reshape(-1)


def token_count(predictor: Path) -> int:
    """The tokens that a predictor knows. Raises StepError if it is none."""
    param, _ = find_net(predictor)
    found = [layer.integer(1) for layer in read_param(param).layers if layer.type == "Embed"]
    if len(found) != 1:
        raise StepError(f"{param.name}: holds {len(found)} Embed layers, not one", "give the predictor")
    return found[0]


def _metadata(file: ParamFile, place: str) -> Metadata:
    tagged = any(layer.type == METADATA_TYPE for layer in file.layers)
    return read_metadata(file, place) if tagged else derive_metadata(file, place)


def _context_size(file: ParamFile, place: str) -> int:
    """The width of the convolution over tokens; 1 without one."""
    types = [layer.type for layer in file.layers]
    if "Embed" not in types or "LSTM" in types:
        raise StepError(f"{place}: is no stateless predictor", "give the predictor of an LSTM transducer")
    return next((layer.integer(1) for layer in file.layers if layer.type in _CONTEXT_TYPES), 1)

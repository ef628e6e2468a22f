"""Tag an LSTM transducer's encoder with the metadata by which sherpa-ncnn knows it.

A line in the `.param`, in front of the network's own layers, tells how many LSTM layers there are and how large they
are. They are read from the network: sherpa-ncnn checks nothing, ends the whole process on a wrong number, and with a
wrong hidden size even goes on and hears something else. Weights stay as they are. Quantise before, not after: ncnn's
own tools do not load a file with this line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.ncnn.sherpa_metadata import Metadata

TOOLS = ("ncnn", "numpy")

FEATURES = 80
"""sherpa-ncnn computes as many mel bins and cannot be told otherwise."""
CHUNK_FRAMES = 9
"""It gives as many frames at a time, and goes on by four."""


class Params(StepParams):
    """What the encoder is believed to be; a network that is anything else is refused. Not asserted unless given."""

    num_encoder_layers: int | None = Field(None, ge=1)
    encoder_dim: int | None = Field(None, ge=1)
    rnn_hidden_size: int | None = Field(None, ge=1)


def run(out: Path, params: Params, *, encoder: Path) -> dict[str, int]:
    """Write the encoder's files to `out`, the `.param` with one line more.

    Returns what the line says. Raises StepError if the network is no LSTM transducer's encoder, if it is tagged
    already, if it is not what the parameters say, or does not make one frame of nine of 80 features.
    """
    from artifacts.files.copy import copy_file
    from artifacts.ncnn.param_file import read_param, write_param
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.sherpa_metadata import add_metadata, read_metadata
    from artifacts.ncnn.traced import NAME

    source, weights = find_net(encoder)
    target = out / source.name
    write_param(add_metadata(read_param(source), source.name), target)
    found = read_metadata(read_param(target), target.name)
    for name, believed in params.model_dump().items():
        if believed not in (None, getattr(found, name)):
            raise StepError(
                f"{source.name}: {name} is {getattr(found, name)}, params say {believed}",
                "give the encoder that is meant, or say what it is",
            )
    copy_file(weights, out / weights.name)
    if (encoder / NAME).exists():
        copy_file(encoder / NAME, out / NAME)
    _run_once(target, out / weights.name, found)
    return found._asdict()


def _run_once(param: Path, weights: Path, metadata: Metadata) -> None:
    """Run the tagged network as sherpa-ncnn does: nine frames, and states of zeros in the sizes of the metadata."""
    import numpy as np

    from artifacts.ncnn.isolated import run_isolated
    from artifacts.ncnn.param_file import read_param
    from artifacts.ncnn.sherpa_metadata import INPUTS, OUTPUTS

    layers, encoder_dim, hidden = metadata[1:]
    shapes = ((CHUNK_FRAMES, FEATURES), (1,), (layers, encoder_dim), (layers, hidden))
    feeds = {name: np.zeros(shape, np.float32) for name, shape in zip(INPUTS, shapes, strict=True)}
    feeds[INPUTS[1]][:] = CHUNK_FRAMES
    # In the order in which they are made: ncnn forgets a blob when its last reader has run. Of features that are too
    # few, a reshape makes as many numbers as it wants, without an error.
    reshapes = [layer for layer in read_param(param).layers if layer.type == "Reshape"]
    blobs = [name for layer in reshapes for name in (*layer.inputs, *layer.outputs)]
    (result,) = run_isolated(param, weights, [feeds], dict.fromkeys((*blobs, *OUTPUTS)))
    made = [result[name].shape for name in OUTPUTS]
    wanted = [(1, encoder_dim), (layers, encoder_dim), (layers, hidden)]
    if made != wanted or any(result[one.inputs[0]].size != result[one.outputs[0]].size for one in reshapes):
        raise StepError(
            f"{param.name}: makes {made} of {CHUNK_FRAMES} frames of {FEATURES} features, sherpa-ncnn needs {wanted}",
            f"give an encoder of {FEATURES} features that makes one frame of {CHUNK_FRAMES}",
        )

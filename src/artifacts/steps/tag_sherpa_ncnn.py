"""Tag an ncnn LSTM transducer's encoder with the metadata by which sherpa-ncnn knows it.

A line in the `.param` file, before the network's own layers, has the number and the sizes of the LSTM layers. They are
read from the network: sherpa-ncnn checks nothing, aborts its process on a wrong number, and with a wrong hidden size
may go on and transcribe other words. Weights stay unchanged. Quantise before this step: ncnn's own tools do not load a
file with this line.
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
HEADLINE = ("num_encoder_layers", "encoder_dim", "rnn_hidden_size")

# sherpa-ncnn always computes this number of mel bins.
FEATURES = 80
# It always gives the encoder this number of frames, each time four frames further on.
CHUNK_FRAMES = 9


class Params(StepParams):
    """Expected sizes of the encoder: another network is an error. None means any size."""

    num_encoder_layers: int | None = Field(None, ge=1)
    """Expected number of layers."""
    encoder_dim: int | None = Field(None, ge=1)
    """Expected width of the encoder."""
    rnn_hidden_size: int | None = Field(None, ge=1)
    """Expected width of the LSTMs' cells."""


def run(out: Path, params: Params, *, encoder: Path) -> dict[str, int]:
    """Write the encoder's files to `out`, with one line more in the `.param` file.

    Metrics are the numbers of the line. Raises StepError if the network is not an LSTM transducer's encoder, is tagged
    already, or has other sizes than the params. Raises it if nine frames of 80 features do not give one frame.
    """
    from artifacts.files.copy import copy_file
    from artifacts.ncnn.param_file import find_net, read_param, write_param
    from artifacts.ncnn.sherpa_metadata import add_metadata, read_metadata
    from artifacts.ncnn.traced import NAME

    source, weights = find_net(encoder)
    target = out / source.name
    write_param(add_metadata(read_param(source), source.name), target)
    found = read_metadata(read_param(target), target.name)
    for name, expected in params.model_dump().items():
        if expected not in (None, getattr(found, name)):
            raise StepError(
                f"{source.name}: {name} is {getattr(found, name)}, params say {expected}",
                "give the encoder that the params describe, or correct the params",
            )
    copy_file(weights, out / weights.name)
    if (encoder / NAME).exists():
        copy_file(encoder / NAME, out / NAME)
    _run_once(target, out / weights.name, found)
    return found._asdict()


def _run_once(param: Path, weights: Path, metadata: Metadata) -> None:
    """Run the tagged network once as sherpa-ncnn does: nine frames, and zero states in the sizes of the metadata."""
    import numpy as np

    from artifacts.ncnn.param_file import read_param
    from artifacts.ncnn.runtime import run_isolated
    from artifacts.ncnn.sherpa_metadata import INPUTS, OUTPUTS

    layers, encoder_dim, hidden = metadata[1:]
    shapes = ((CHUNK_FRAMES, FEATURES), (1,), (layers, encoder_dim), (layers, hidden))
    feeds = {name: np.zeros(shape, np.float32) for name, shape in zip(INPUTS, shapes, strict=True)}
    feeds[INPUTS[1]][:] = CHUNK_FRAMES
    # In the order in which they are computed: ncnn frees a blob after its last consumer. The reshapes are checked
    # because a reshape of too few features makes up the missing numbers without an error.
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

"""Trace a network of an icefall LSTM transducer as TorchScript, for pnnx to convert to ncnn.

Parts have NeMo's names; icefall and sherpa call them encoder, decoder and joiner. `<part>.pt` takes and gives float32,
lengths and token ids int64, in the order of `inputs.json` (see `ncnn/traced.py`). There is one stream.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from artifacts.params import StepParams

TOOLS = ("torch", "numpy")
HEADLINE = ("max_abs_diff",)


class Params(StepParams):
    """The network to trace."""

    part: Literal["encoder", "predictor", "joint"] = "encoder"
    """Which of the three networks."""


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float | int]:
    """Write `<part>.pt` and `inputs.json` from icefall's `.pt` file, or from a folder with one.

    Returns the largest absolute difference between the trace and the network at a length that was not traced. Raises
    StepError if it is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.icefall.checkpoint import load

    model = load(checkpoint)
    # torch is imported by what follows: a checkpoint that is refused does not wait for it.
    from artifacts.icefall.lstm_transducer import CHUNK_FRAMES
    from artifacts.icefall.networks import NETWORKS
    from artifacts.ncnn.torchscript import NO_OPEN_LENGTH, Lengths, interface_of, max_abs_diff, write_trace
    from artifacts.ncnn.traced import write_interface

    network, lengths = NETWORKS[params.part](model), NO_OPEN_LENGTH
    if params.part == "encoder":
        lengths = Lengths({"frames": 39}, {"frames": CHUNK_FRAMES}, {"frames": 57})
    path = out / f"{params.part}.pt"
    write_trace(network, lengths.traced, path)
    write_interface(interface_of(network, lengths), out)
    return {"max_abs_diff": max_abs_diff(path, network, lengths.unseen), "bytes": path.stat().st_size}

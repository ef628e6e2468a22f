"""Trace a network of a .nemo checkpoint as TorchScript, for pnnx to convert to ncnn.

`<part>.pt` takes and gives float32, token ids int64, in the order of `inputs.json` (see `ncnn/traced.py`). There is one
utterance, as long as its features, so that nothing is masked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.model.network import Network
    from artifacts.ncnn.torchscript import Lengths
    from artifacts.nemo.transducer import Transducer

TOOLS = ("torch", "nemo_toolkit", "numpy")
HEADLINE = ("max_abs_diff",)

NEMOS_NAMES = {"encoder": "encoder", "predictor": "decoder", "joint": "joint"}


class Params(StepParams):
    """The network to trace."""

    part: Literal["encoder", "predictor", "joint"] = "encoder"
    """Which of the three networks."""
    max_seconds: float | None = Field(None, gt=0)
    """The longest recording that the encoder takes; by default what the checkpoint's table of positions allows.

    The table is part of the network, float32 whatever the rest is: Parakeet's has 41 MB, one for a minute 6 MB.
    """

    @model_validator(mode="after")
    def _only_encoders_have_a_table(self) -> Params:
        if self.max_seconds is not None and self.part != "encoder":
            raise ValueError("max_seconds: only an encoder has a table of positions")
        return self


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float | int]:
    """Write `<part>.pt` and `inputs.json` from the .nemo file.

    Returns the largest absolute difference between the trace and the network at a length that was not traced. Raises
    StepError if it is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.nemo.checkpoint import restore

    model = restore(checkpoint, out, [NEMOS_NAMES[params.part]])
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.ncnn.torchscript import interface_of, max_abs_diff, write_trace
    from artifacts.ncnn.traced import write_interface
    from artifacts.nemo.networks import folded_batch_norms

    network, lengths = _network(model, params)
    path = out / f"{params.part}.pt"
    with folded_batch_norms(network):  # pnnx would fold them in float32
        write_trace(network, lengths.traced, path)
    write_interface(interface_of(network, lengths), out)
    return {"max_abs_diff": max_abs_diff(path, network, lengths.unseen), "bytes": path.stat().st_size}


def _network(model: Transducer, params: Params) -> tuple[Network, Lengths]:
    from artifacts.ncnn.torchscript import NO_OPEN_LENGTH, Lengths
    from artifacts.nemo.unbatched_networks import UnbatchedEncoder, UnbatchedJoint, UnbatchedPredictor

    if params.part == "encoder":
        # 29, 53 and 12 encoder frames. Two lengths with as many encoder frames would make that number a constant.
        lengths = Lengths({"frames": 231}, {"frames": 421}, {"frames": 89})
        return UnbatchedEncoder(model, params.max_seconds), lengths
    kind = UnbatchedPredictor if params.part == "predictor" else UnbatchedJoint
    return kind(model), NO_OPEN_LENGTH

"""Export the joint of a .nemo checkpoint: encoder frames and predictor output to logits.

The graph, float32: `encoder_output` [B, D, T], `predictor_output` [B, H, U] → `joint_output` [B, T, U, V]. V is the
tokens, blank, and one for each duration; the values are raw logits, tokens and durations judged each by themselves.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, model_validator

from artifacts.params import StepParams

TOOLS = ("torch", "nemo_toolkit", "onnx", "protobuf")


class Params(StepParams):
    """`opset`: operators of ONNX 17 to 20 (the last that the exporter knows).

    `dynamic_axes`: false makes a graph for inputs of `batch_size`, `encoder_frames` and `tokens` only, which must then
    be given.
    """

    opset: int = Field(17, ge=17, le=20)
    dynamic_axes: bool = True
    batch_size: int | None = Field(None, ge=1)
    encoder_frames: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fixed_sizes_go_with_fixed_axes(self) -> Params:
        sizes = (self.batch_size, self.encoder_frames, self.tokens)
        if any(self.dynamic_axes != (size is None) for size in sizes):
            raise ValueError("dynamic_axes: false needs batch_size, encoder_frames and tokens, and nothing else does")
        return self

    @property
    def fixed_sizes(self) -> dict[str, int] | None:
        """The size of each axis, if they are fixed."""
        if self.batch_size is None or self.encoder_frames is None or self.tokens is None:
            return None
        return {"batch": self.batch_size, "encoder_frames": self.encoder_frames, "tokens": self.tokens}


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float]:
    """Write `joint-model.onnx` from the .nemo file.

    Returns the largest absolute difference between ONNX Runtime and torch, over one to four rows of one to fifty frames
    and one to five tokens. Raises StepError if it is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.nemo.checkpoint import restore

    with TemporaryDirectory(dir=out) as unpacked:
        model = restore(checkpoint, Path(unpacked))
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.graph.model_file import check_model, consolidate
    from artifacts.nemo.networks import JointNetwork
    from artifacts.nemo.onnx_export import export_network
    from artifacts.nemo.parity import compare

    path = out / "joint-model.onnx"
    network = JointNetwork(model)
    with TemporaryDirectory(dir=out) as loose:
        export_network(network, Path(loose) / path.name, params.opset, params.fixed_sizes)
        consolidate(Path(loose) / path.name, path)
    check_model(path)
    open_sizes = [(1, 1, 1), (2, 13, 5), (4, 50, 1)]
    cases = [{"batch": b, "encoder_frames": t, "tokens": u} for b, t, u in open_sizes]
    return compare(path, network, [params.fixed_sizes] if params.fixed_sizes else cases)

"""Export the joint of a .nemo checkpoint: encoder frames and predictor output to logits.

The graph, float32: `encoder_output` [B, D, T], `predictor_output` [B, H, U] → `joint_output` [B, T, U, V]. V is the
tokens, blank, and one for each duration. The values are raw logits: tokens and durations each need their own softmax.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.nemo.export_params import ExportParams

TOOLS = ("torch", "nemo_toolkit", "onnx", "protobuf")
HEADLINE = ("joint_output_max_abs_diff",)

# Of the comparison with torch.
CASES = [{"batch": b, "encoder_frames": t, "tokens": u} for b, t, u in ((1, 1, 1), (2, 13, 5), (4, 50, 1))]


class Params(ExportParams):
    """The opset, and axes that vary or are fixed."""

    encoder_frames: int | None = Field(None, ge=1)
    """Encoder frames of one input, if the axes are fixed."""
    tokens: int | None = Field(None, ge=1)
    """Tokens of one input, if the axes are fixed."""


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float]:
    """Write `joint-model.onnx` from the .nemo file.

    Returns the largest absolute difference between ONNX Runtime and torch, over one to four rows of one to fifty frames
    and one to five tokens. Raises StepError if it is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.nemo.checkpoint import restore

    model = restore(checkpoint, out, ["joint"])
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.graph.model_file import check_model, consolidate
    from artifacts.nemo.networks import JointNetwork
    from artifacts.nemo.onnx_export import compare_with_torch, exported

    network, path, sizes = JointNetwork(model), out / "joint-model.onnx", params.fixed_sizes
    with exported(network, path, params.opset, sizes) as loose:
        consolidate(loose, path)
    check_model(path)
    return compare_with_torch(path, network, [sizes] if sizes else CASES)

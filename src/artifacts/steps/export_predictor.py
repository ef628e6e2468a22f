"""Export the predictor of a .nemo checkpoint: tokens so far to the joint's second input.

The graph, float32: `y` [B, U] int64, `h` and `c` [L, B, H] → `g` [B, H, U], `h_out` and `c_out` [L, B, H]. Nothing is
prepended to `y`: decoding starts with blank (its embedding is zero) and with zeros for `h` and `c`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.nemo.export_params import ExportParams

TOOLS = ("torch", "nemo_toolkit", "onnx", "protobuf")
HEADLINE = ("g_max_abs_diff",)

# Of the comparison with torch.
CASES = [{"batch": b, "tokens": u} for b, u in ((1, 1), (1, 7), (4, 1), (4, 12))]


class Params(ExportParams):
    """The opset, and axes that vary or are fixed."""

    tokens: int | None = Field(None, ge=1)
    """Tokens of one input, if the axes are fixed."""


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float]:
    """Write `predictor-model.onnx` from the .nemo file.

    Returns the largest absolute difference of each output between ONNX Runtime and torch, over one to four rows of one
    to twelve tokens. Raises StepError if one is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.nemo.checkpoint import restore

    model = restore(checkpoint, out, ["decoder"])
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.graph.model_file import check_model, consolidate
    from artifacts.nemo.networks import PredictorNetwork
    from artifacts.nemo.onnx_export import compare_with_torch, exported

    network, path, sizes = PredictorNetwork(model), out / "predictor-model.onnx", params.fixed_sizes
    with exported(network, path, params.opset, sizes) as loose:
        consolidate(loose, path)
    check_model(path)
    return compare_with_torch(path, network, [sizes] if sizes else CASES)

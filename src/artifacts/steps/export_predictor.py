"""Export the predictor of a .nemo checkpoint: tokens so far to what the joint needs of them.

The graph, float32: `y` [B, U] int64, `h` and `c` [L, B, H] → `g` [B, H, U], `h_out` and `c_out` [L, B, H]. Nothing is
prepended to `y`: decoding starts with blank (its embedding is zero) and with zeros for `h` and `c`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, model_validator

from artifacts.params import StepParams

TOOLS = ("torch", "nemo_toolkit", "onnx", "protobuf")


class Params(StepParams):
    """`opset`: operators of ONNX 17 to 20 (the last that the exporter knows).

    `dynamic_axes`: false makes a graph for inputs of `batch_size` and `tokens` only, which must then be given.
    """

    opset: int = Field(17, ge=17, le=20)
    dynamic_axes: bool = True
    batch_size: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fixed_sizes_go_with_fixed_axes(self) -> Params:
        if self.dynamic_axes != (self.batch_size is None) or self.dynamic_axes != (self.tokens is None):
            raise ValueError("dynamic_axes: false needs batch_size and tokens, and nothing else does")
        return self

    @property
    def fixed_sizes(self) -> dict[str, int] | None:
        """The size of each axis, if they are fixed."""
        if self.batch_size is None or self.tokens is None:
            return None
        return {"batch": self.batch_size, "tokens": self.tokens}


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float]:
    """Write `predictor-model.onnx` from the .nemo file.

    Returns the largest absolute difference of each output between ONNX Runtime and torch, over one to four rows of one
    to twelve tokens. Raises StepError if one is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.nemo.checkpoint import restore

    with TemporaryDirectory(dir=out) as unpacked:
        model = restore(checkpoint, Path(unpacked))
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.graph.model_file import check_model, consolidate
    from artifacts.nemo.networks import PredictorNetwork
    from artifacts.nemo.onnx_export import export_network
    from artifacts.nemo.parity import compare

    path = out / "predictor-model.onnx"
    network = PredictorNetwork(model)
    with TemporaryDirectory(dir=out) as loose:
        export_network(network, Path(loose) / path.name, params.opset, params.fixed_sizes)
        consolidate(Path(loose) / path.name, path)
    check_model(path)
    open_sizes = [(1, 1), (1, 7), (4, 1), (4, 12)]
    cases = [{"batch": batch, "tokens": tokens} for batch, tokens in open_sizes]
    return compare(path, network, [params.fixed_sizes] if params.fixed_sizes else cases)

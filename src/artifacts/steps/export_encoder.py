"""Export the encoder of a .nemo checkpoint: features to encoder frames.

The graph, float32: `audio_signal` [B, features, T], `length` [B] int64 → `encoder_output` [B, D, T'],
`encoded_lengths` [B] int64, where T' = ceil(T / subsampling_factor).

Like every export of this family it takes up to 400 s of audio: 40,000 frames, 5000 encoder frames, where its table of
relative positions ends. One encoder frame more finds a single position, which fits everywhere: the output is wrong and
nothing fails. From two more on the run fails. `model_meta.json` states the limit as `max_encoder_frames`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, model_validator

from artifacts.params import StepParams

TOOLS = ("torch", "nemo_toolkit", "numpy", "onnx", "protobuf")


class Params(StepParams):
    """`opset`: operators of ONNX 17 (the first with LayerNormalization) to 20 (the last that the exporter knows).

    `dynamic_axes`: false makes a graph for inputs of `batch_size` and `frames` only, which must then be given.
    """

    opset: int = Field(17, ge=17, le=20)
    dynamic_axes: bool = True
    batch_size: int | None = Field(None, ge=1)
    frames: int | None = Field(None, ge=1, le=40_000)

    @model_validator(mode="after")
    def _fixed_sizes_go_with_fixed_axes(self) -> Params:
        if self.dynamic_axes != (self.batch_size is None) or self.dynamic_axes != (self.frames is None):
            raise ValueError("dynamic_axes: false needs batch_size and frames, and nothing else does")
        return self

    @property
    def fixed_sizes(self) -> dict[str, int] | None:
        """The size of each axis, if they are fixed."""
        if self.batch_size is None or self.frames is None:
            return None
        return {"batch": self.batch_size, "frames": self.frames}


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float]:
    """Write `encoder-model.onnx`, above 1.5 GB with `encoder-model.onnx.data`, from the .nemo file.

    Returns the largest absolute difference between ONNX Runtime and torch on batches of one to three rows of odd, even
    and unequal lengths. Raises StepError if it is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.nemo.checkpoint import restore

    with TemporaryDirectory(dir=out) as unpacked:
        model = restore(checkpoint, Path(unpacked))
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.graph.model_file import check_model, consolidate
    from artifacts.nemo.networks import EncoderNetwork
    from artifacts.nemo.onnx_export import export_network
    from artifacts.nemo.parity import compare

    path = out / "encoder-model.onnx"
    network = EncoderNetwork(model)
    with TemporaryDirectory(dir=out) as loose:
        export_network(network, Path(loose) / path.name, params.opset, params.fixed_sizes)
        consolidate(Path(loose) / path.name, path)
    check_model(path)
    open_sizes = [(1, 1), (1, 8), (1, 9), (2, 101), (3, 400), (1, 1501)]
    cases = [{"batch": batch, "frames": frames} for batch, frames in open_sizes]
    return compare(path, network, [params.fixed_sizes] if params.fixed_sizes else cases)

"""Export the encoder of a .nemo checkpoint: features to encoder frames.

The graph, float32: `audio_signal` [B, features, T], `length` [B] int64 → `encoder_output` [B, D, T'],
`encoded_lengths` [B] int64, where T' = ceil(T / subsampling_factor).

Each encoder of this family takes up to 400 s of audio: 40,000 frames, 5000 encoder frames, the end of its table of
relative positions. With one encoder frame more, a single position is broadcast to all: the output is wrong and nothing
fails. With two more, the run fails. `model_meta.json` states the limit as `max_encoder_frames`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.nemo.export_params import ExportParams

TOOLS = ("torch", "nemo_toolkit", "numpy", "onnx", "protobuf")
HEADLINE = ("encoder_output_max_abs_diff",)

# Of the comparison with torch: odd, even and unequal lengths.
CASES = [{"batch": b, "frames": t} for b, t in ((1, 1), (1, 8), (1, 9), (2, 101), (3, 400), (1, 1501))]


class Params(ExportParams):
    """The opset, and axes that vary or are fixed."""

    frames: int | None = Field(None, ge=1, le=40_000)
    """Features of one input, if the axes are fixed; at most 400 s of them."""


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float]:
    """Write `encoder-model.onnx`, above 1.5 GB with `encoder-model.onnx.data`, from the .nemo file.

    Returns the largest absolute difference between ONNX Runtime and torch on batches of one to three rows of odd, even
    and unequal lengths. Raises StepError if it is above 1e-4, or the checkpoint is not a supported one.
    """
    from artifacts.nemo.checkpoint import restore

    model = restore(checkpoint, out, ["encoder"])
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.graph.model_file import check_model, consolidate
    from artifacts.nemo.networks import EncoderNetwork
    from artifacts.nemo.onnx_export import compare_with_torch, exported

    network, path, sizes = EncoderNetwork(model), out / "encoder-model.onnx", params.fixed_sizes
    with exported(network, path, params.opset, sizes) as loose:
        consolidate(loose, path)
    check_model(path)
    return compare_with_torch(path, network, [sizes] if sizes else CASES)

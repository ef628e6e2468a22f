"""Export the preprocessor of a .nemo checkpoint: waveforms to log-mel features.

The graph, float32: `waveforms` [B, N] in -1..1, `waveforms_lens` [B] int64 (samples) → `features` [B, features, T],
`features_lens` [B] int64 (frames). The names are those of onnx-asr's `nemo128.onnx`, which browser and Rust
applications read from the model's folder. Settings, window and filterbank are the checkpoint's; dither is left out, as
in NeMo's evaluation. Frames are centred: T = N // hop + 1, of which `waveforms_lens` // hop are valid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("nemo_toolkit", "numpy", "onnx", "protobuf")
HEADLINE = ("features_max_abs_diff",)

# Features have a deviation of 1. On the quietest speech this graph is 3e-4 off float64, and NeMo itself 7e-4.
MAX_ABS_DIFF = 1e-3


class Params(StepParams):
    """The opset."""

    opset: int = Field(17, ge=17, le=20)
    """Version of ONNX's operators; those that are used are the same from 17 to 20."""


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float]:
    """Write `preprocessor.onnx`, without external data, from the .nemo file.

    Returns the largest absolute difference from NeMo's own preprocessor, on rows of unequal length with loud, soft and
    silent parts. Raises StepError if it is above 1e-3, for a setting that has no graph here, with its key, and if the
    checkpoint is not a supported one.
    """
    from artifacts.graph.model_file import check_model, save_graph
    from artifacts.nemo.checkpoint import restore
    from artifacts.nemo.features_graph import build_features_graph, read_settings

    preprocessor = restore(checkpoint, out, ["preprocessor"]).preprocessor
    settings = read_settings(preprocessor, checkpoint.name)
    path = out / "preprocessor.onnx"
    save_graph(build_features_graph(settings, params.opset), path, external=False)
    check_model(path)
    return _compare(path, preprocessor)


def _compare(path: Path, preprocessor: Any) -> dict[str, float]:
    import numpy as np
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    lengths = np.array([48_000, 31_999, 8_000, 100])
    envelope = np.repeat(np.array([0.3, 0.0, 0.01, 0.1, 1e-4, 0.5]), 8_000)
    waveforms = (random.standard_normal((len(lengths), len(envelope))) * envelope).astype(np.float32)
    features, features_lens = session.run(
        ["features", "features_lens"], {"waveforms": waveforms, "waveforms_lens": lengths}
    )
    preprocessor.featurizer.pad_to = 0
    with torch.no_grad():
        want, want_lens = preprocessor(input_signal=torch.from_numpy(waveforms), length=torch.from_numpy(lengths))
    difference = float(np.max(np.abs(features - want.numpy()))) if features.shape == tuple(want.shape) else float("inf")
    if not (difference <= MAX_ABS_DIFF and np.array_equal(features_lens, want_lens.numpy())):
        raise StepError(
            f"{path.name}: features differ from NeMo's by {difference:.3g}, {MAX_ABS_DIFF} is allowed; their lengths"
            f" are {features_lens.tolist()}, NeMo's {want_lens.tolist()}",
            "leave the preprocessor out of the recipe and report it",
        )
    return {"features_max_abs_diff": difference}

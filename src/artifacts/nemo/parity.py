"""Compares an exported graph, run by ONNX Runtime, with the network it was made from, run by torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from artifacts.errors import StepError
from artifacts.model.network import Network, Sizes
from artifacts.nemo.quiet import quiet

MAX_ABS_DIFF = 1e-4
"""What the same float32 arithmetic in another order may amount to. Parakeet-TDT 0.6B shows 3e-6."""


def compare(path: Path, network: Network, cases: Sequence[Sizes]) -> dict[str, float]:
    """Run both on random inputs of the given sizes.

    Returns the largest absolute difference of each float output over all cases, as `<output>_max_abs_diff`.
    Raises StepError if one passes `MAX_ABS_DIFF`, or if an integer output or a shape differs at all.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest: dict[str, float] = {}
    for sizes in cases:
        inputs = network.sample(sizes, seed=1)
        with quiet(), torch.no_grad():
            expected = network(*inputs)
        feeds = {name: value.numpy() for name, value in zip(network.inputs, inputs, strict=True)}
        got = session.run(list(network.outputs), feeds)
        for name, want, have in zip(network.outputs, expected, got, strict=True):
            worst = _difference(want.numpy(), have)
            if not worst <= (MAX_ABS_DIFF if want.is_floating_point() else 0):
                at = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
                raise StepError(
                    f"{path.name}: '{name}' drifts from torch by {worst:.3g} at {at}, {MAX_ABS_DIFF} is allowed",
                    "export with the library versions that are pinned; if you did, the exporter has a bug",
                )
            if want.is_floating_point():
                key = f"{name}_max_abs_diff"
                largest[key] = max(largest.get(key, 0.0), worst)
    return largest


def _difference(want: np.ndarray, have: np.ndarray) -> float:
    """The largest absolute difference, infinite if the shapes differ, NaN if there is one in either."""
    return float(np.max(np.abs(want - have))) if want.shape == have.shape else float("inf")

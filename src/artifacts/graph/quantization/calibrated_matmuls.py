"""The MatMuls of a model by the value that they read, with their weights and the statistics of that value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from artifacts.errors import StepError
from artifacts.graph.content import stored_content
from artifacts.graph.quantization.activation_statistics import ActivationStatistics, StatisticsReader
from artifacts.graph.quantization.matrix_content import read_matrix
from artifacts.graph.quantization.weight_matmuls import WeightMatMul, weight_matmuls

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto


def matmuls_by_value(model: ModelProto, excluded: Collection[str]) -> dict[str, list[WeightMatMul]]:
    """The MatMuls by constant weights, but for nodes of the names in `excluded`, by their activation."""
    readers: dict[str, list[WeightMatMul]] = {}
    for matmul in weight_matmuls(model):
        if matmul.node.name not in excluded:
            readers.setdefault(matmul.activation, []).append(matmul)
    return readers


def read_calibrated(
    readers: Sequence[WeightMatMul], statistics: StatisticsReader, folder: Path
) -> tuple[ActivationStatistics, list[NDArray[np.float32]]]:
    """The statistics of the value that these read, and their weights `[K, N]`, from the model's folder.

    Raises StepError for a value that was not measured or had another number of channels, and for a weight with NaN or
    infinity.
    """
    measured = statistics.read(readers[0].activation)
    weights = []
    for reader in readers:
        channels, columns = reader.sizes
        if len(measured.low) != channels:
            raise StepError(
                f"statistics of the value '{measured.value}': {len(measured.low)} channels, "
                f"'{reader.node.name}' multiplies {channels}",
                "calibrate on this very model",
            )
        weights.append(read_matrix(stored_content(reader.weight, folder), columns))
        if not np.isfinite(weights[-1]).all():
            raise StepError(
                f"weight '{reader.weight.name}': holds NaN or infinity", "train or export the checkpoint again"
            )
    return measured, weights

"""Read and write the table of scales between ncnn's calibrators and its quantiser.

A line `NAME_param_0 s0 s1 … ` for each layer has a scale for each output channel of its weights. Then a line `NAME s`
for each layer has the scale of its input. A number times its scale is its int8 value. Scales are written as `%f`, with
a space after each: the text equals that of `generate-int8-scale-table`, and ncnn's own quantiser reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from artifacts.errors import StepError
from artifacts.untrusted.read_input import read_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHT_MARK = "_param_"
SUFFIX = ".table"


@dataclass(frozen=True)
class ScaleTable:
    """Scales by the names of layers, in the order of the table."""

    weights: Mapping[str, NDArray[np.float32]]
    """By `NAME_param_N`: `[output channels]` of the layer's Nth matrix."""
    activations: Mapping[str, float]
    """By `NAME`."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the names of all layers that the table has scales for."""
        names = [*(key.rpartition(WEIGHT_MARK)[0] for key in self.weights), *self.activations]
        return tuple(dict.fromkeys(names))

    def weight_scales(self, layer: str, matrix: int = 0) -> NDArray[np.float32] | None:
        """Return the scales of a layer's matrix, or None if the table has none."""
        return self.weights.get(f"{layer}{WEIGHT_MARK}{matrix}")


def find_table(folder: Path, model: str) -> Path:
    """Return the table `<part>.table` for the network `<part>.ncnn.param`, or `folder` itself if it is a file.

    Raises StepError if there is none.
    """
    if folder.is_file():
        return folder
    path = folder / f"{model.partition('.')[0]}{SUFFIX}"
    if not path.is_file():
        names = ", ".join(sorted(each.name for each in folder.glob(f"*{SUFFIX}"))) or "no tables"
        raise StepError(f"{folder.name}: contains {names}, not '{path.name}'", "calibrate this network too")
    return path


def write_table(table: ScaleTable, path: Path) -> None:
    """Write the table, weights first."""
    rows: list[tuple[str, list[float]]] = [(key, scales.tolist()) for key, scales in table.weights.items()]
    rows += [(key, [scale]) for key, scale in table.activations.items()]
    path.write_bytes("".join(f"{key} {''.join(f'{scale:f} ' for scale in scales)}\n" for key, scales in rows).encode())


def read_table(path: Path) -> ScaleTable:
    """Read a table; its lines may come in any order.

    Raises StepError, with the line, for a scale that is not a number above 0, and for a key that is there twice. Raises
    it for a layer without scales of its weights, which could not be quantised.
    """
    fix = "calibrate again, or write the table as generate-int8-scale-table does"
    weights: dict[str, NDArray[np.float32]] = {}
    activations: dict[str, float] = {}
    for number, line in enumerate(read_text(path, fix).splitlines(), start=1):
        key, *words = line.split() or [""]
        if not key:
            continue
        location = f"{path.name}:{number}: {key}"
        if key in weights or key in activations:
            raise StepError(f"{location}: is there twice", fix)
        scales = [_scale(word, location, fix) for word in words]
        if not scales or (WEIGHT_MARK not in key and len(scales) != 1):
            wanted = "scales of its output channels" if WEIGHT_MARK in key else "one scale of its input"
            raise StepError(f"{location}: has {len(scales)} numbers, needs {wanted}", fix)
        if WEIGHT_MARK in key:
            weights[key] = np.array(scales, np.float32)
        else:
            activations[key] = scales[0]
    table = ScaleTable(weights, activations)
    if not activations and not weights:
        raise StepError(f"{path.name}: contains no scales", fix)
    for layer in activations:
        if table.weight_scales(layer) is None:
            raise StepError(f"{path.name}: {layer}: has a scale of its input and none of its weights", fix)
    return table


def _scale(word: str, location: str, fix: str) -> float:
    try:
        scale = float(word)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise StepError(f"{location}: '{word}' is not a scale: it must be above 0 and finite", fix)
    return float(np.float32(scale))

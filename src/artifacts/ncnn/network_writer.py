"""Writes a network that was changed layer by layer, holding the weights of one layer at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from artifacts.files.copy import copy_file
from artifacts.ncnn.param_file import Layer, ParamFile, write_param
from artifacts.ncnn.weights_file import LayerWeights, write_weights


def write_network(layers: Iterable[tuple[Layer, LayerWeights]], source: Path, out: Path) -> Path:
    """Write the layers, as they come, to `out` under the name of the `.param` file `source`; returns the new one.

    What else is in `source`'s folder (what the inputs are, for one) is copied.
    """
    written: list[Layer] = []

    def remember() -> Iterable[tuple[Layer, LayerWeights]]:
        for layer, weights in layers:
            written.append(layer)
            yield layer, weights

    param = out / source.name
    write_weights(remember(), param.with_suffix(".bin"))
    write_param(ParamFile(tuple(written)), param)
    copy_others(source, out)
    return param


def copy_others(source: Path, out: Path) -> None:
    """Copy the files that lie beside a network's two to `out`."""
    for path in sorted(source.parent.iterdir()):
        if path.is_file() and path not in (source, source.with_suffix(".bin")):
            copy_file(path, out / path.name)


def network_bytes(param: Path) -> int:
    """The size of a network's two files."""
    return param.stat().st_size + param.with_suffix(".bin").stat().st_size

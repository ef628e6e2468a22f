"""ncnn's `.bin` files: the weights of all layers, one after another, as `layer_fields` says.

Most arrays follow a tag of four bytes that says what their numbers are; after it their bytes are filled up to a
multiple of four. Biases and scales have no tag and are float32. All is little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.ncnn.layer_fields import Field, layer_fields
from artifacts.ncnn.param_file import Layer, ParamFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOAT32 = np.dtype("<f4")
TAGS: dict[np.dtype[Any], int] = {_FLOAT32: 0, np.dtype("<f2"): 0x01306B47, np.dtype("i1"): 0x000D4B38}
"""ncnn knows two more that nothing here writes: weights by a table of 256 numbers, and float32 that must stay so."""

_DTYPES = {tag: dtype for dtype, tag in TAGS.items()}
_FIX = "convert the model again; .param and .bin must be of one conversion"


@dataclass(frozen=True)
class Weight:
    """One array of a layer."""

    name: str
    values: NDArray[Any]
    """float32, float16 or int8, in the shape of its field; of a file that was read: mapped, not to be written."""
    tagged: bool
    padding: bytes = b""
    """What fills the last four bytes; zeros unless said (pnnx writes other numbers there)."""

    @property
    def nbytes(self) -> int:
        """Its bytes in the file."""
        return (4 if self.tagged else 0) + _filled(self.values.nbytes)

    def as_float32(self) -> NDArray[np.float32]:
        """Its numbers as float32, which float16 and float32 are exactly."""
        numbers: NDArray[np.float32] = np.asarray(self.values, np.float32)
        return numbers


LayerWeights = Mapping[str, Weight]
"""A layer's arrays by the names of their fields, in the order of the file."""


def read_weights(file: ParamFile, path: Path) -> dict[str, LayerWeights]:
    """The weights of each layer of `file` by the layer's name, mapped from `path`: nothing is copied.

    Raises StepError if there is no such file, a layer's type is not known, a tag is none that we know, or the layers do
    not end where the file does.
    """
    if not path.is_file():
        raise StepError(f"{path.name}: there is no such file in '{path.parent.name}'", _FIX)
    size = path.stat().st_size
    content = np.memmap(path, np.uint8, mode="r") if size else np.empty(0, np.uint8)
    found: dict[str, LayerWeights] = {}
    place = 0
    for layer in file.layers:
        weights: dict[str, Weight] = {}
        for field in layer_fields(layer):
            weight = _read(content, place, field, f"{path.name}: layer '{layer.name}' ({layer.type}): {field.name}")
            weights[field.name] = weight
            place += weight.nbytes
        found[layer.name] = weights
    if place != size:
        raise StepError(f"{path.name}: holds {size} bytes, its layers have {place}", _FIX)
    return found


def write_weights(layers: Iterable[tuple[Layer, LayerWeights]], path: Path) -> int:
    """Write the layers' weights in their order, as they come; returns the bytes written.

    Raises ValueError if a layer's weights are not those that `layer_fields` says ncnn will read.
    """
    written = 0
    with path.open("wb") as file:
        for layer, weights in layers:
            fields = layer_fields(layer)
            if [field.name for field in fields] != list(weights):
                raise _misfit(layer, f"has {', '.join(weights) or 'no weights'}", fields)
            for field, weight in zip(fields, weights.values(), strict=True):
                if (weight.values.size, weight.tagged) != (field.count, field.tagged):
                    raise _misfit(layer, f"'{weight.name}' has {weight.values.size} numbers", fields)
                for piece in _pieces(weight):
                    file.write(piece)
                written += weight.nbytes
    return written


def _misfit(layer: Layer, fact: str, fields: tuple[Field, ...]) -> ValueError:
    needs = ", ".join(f"{field.name} {list(field.shape)}" for field in fields) or "none"
    return ValueError(f"layer '{layer.name}' ({layer.type}): {fact}, ncnn reads {needs}")


def _read(content: NDArray[np.uint8], place: int, field: Field, name: str) -> Weight:
    dtype: np.dtype[Any] = _FLOAT32
    start = place
    if field.tagged:
        tag = int.from_bytes(content[place : place + 4].tobytes(), "little")
        if tag not in _DTYPES:
            raise StepError(f"{name}: byte {place} has the tag {tag:#010x}, which is none that is known here", _FIX)
        dtype = _DTYPES[tag]
        start += 4
    nbytes = field.count * dtype.itemsize
    end = start + _filled(nbytes)
    if end > len(content):
        raise StepError(f"{name}: ends at byte {end}, the file has {len(content)}", _FIX)
    values = content[start : start + nbytes].view(dtype).reshape(field.shape)
    return Weight(field.name, values, field.tagged, content[start + nbytes : end].tobytes())


def _pieces(weight: Weight) -> Iterator[bytes | memoryview]:
    if weight.tagged:
        yield TAGS[weight.values.dtype].to_bytes(4, "little")
    elif weight.values.dtype != np.float32:
        raise TypeError(f"{weight.name}: is {weight.values.dtype}, and has no tag to say so")
    yield np.ascontiguousarray(weight.values).reshape(-1).view(np.uint8).data
    missing = _filled(weight.values.nbytes) - weight.values.nbytes
    yield weight.padding if len(weight.padding) == missing else bytes(missing)


def _filled(nbytes: int) -> int:
    return (nbytes + 3) // 4 * 4

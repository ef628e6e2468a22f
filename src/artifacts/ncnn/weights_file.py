"""Read and write ncnn's `.bin` files, and write a network layer by layer.

A `.bin` file contains the weights of all layers, one after another, as `layer_fields` lists them. Most arrays have a
tag of four bytes before them, which says their dtype; such arrays are padded to a multiple of four bytes. Biases and
scales have no tag and are float32. All numbers are little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.files.copy import copy_file
from artifacts.ncnn.layer_fields import Field, layer_fields
from artifacts.ncnn.param_file import Layer, ParamFile, write_param

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOAT32 = np.dtype("<f4")
# ncnn has two more, which nothing here writes: weights by a table of 256 numbers, and float32 that must stay float32.
TAGS: dict[np.dtype[Any], int] = {_FLOAT32: 0, np.dtype("<f2"): 0x01306B47, np.dtype("i1"): 0x000D4B38}

_DTYPES = {tag: dtype for dtype, tag in TAGS.items()}
_FIX = "convert the model again; .param and .bin must be of one conversion"


@dataclass(frozen=True)
class Weight:
    """One array of a layer."""

    name: str
    values: NDArray[Any]
    """float32, float16 or int8, in the shape of its field. Read from a file, it is a read-only map."""
    tagged: bool
    padding: bytes = b""
    """Bytes after the values, up to a multiple of four; zeros by default. pnnx writes other numbers there."""

    @property
    def nbytes(self) -> int:
        """Return its size in the file, tag and padding included."""
        return (4 if self.tagged else 0) + _filled(self.values.nbytes)

    def as_float32(self) -> NDArray[np.float32]:
        """Return the values as float32, which is exact for float16 and float32."""
        numbers: NDArray[np.float32] = np.asarray(self.values, np.float32)
        return numbers


# A layer's arrays by the names of their fields, in the order of the file.
LayerWeights = Mapping[str, Weight]


def read_weights(file: ParamFile, path: Path) -> dict[str, LayerWeights]:
    """Return the weights of each layer of `file` by the layer's name, mapped from `path` without a copy.

    Raises StepError if the file is missing, for an unknown layer type or tag, and if the layers do not end where the
    file does.
    """
    if not path.is_file():
        raise StepError(f"{path.name}: is missing in '{path.parent.name}'", _FIX)
    size = path.stat().st_size
    content = np.memmap(path, np.uint8, mode="r") if size else np.empty(0, np.uint8)
    found: dict[str, LayerWeights] = {}
    offset = 0
    for layer in file.layers:
        weights: dict[str, Weight] = {}
        for field in layer_fields(layer):
            weight = _read(content, offset, field, f"{path.name}: layer '{layer.name}' ({layer.type}): {field.name}")
            weights[field.name] = weight
            offset += weight.nbytes
        found[layer.name] = weights
    if offset != size:
        raise StepError(f"{path.name}: has {size} bytes, its layers have {offset}", _FIX)
    return found


def write_weights(layers: Iterable[tuple[Layer, LayerWeights]], path: Path) -> int:
    """Write the weights of the layers in their order; return the number of bytes written.

    Raises ValueError if a layer's weights are not those of `layer_fields`, which ncnn will read.
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
                for chunk in _chunks(weight):
                    file.write(chunk)
                written += weight.nbytes
    return written


def write_network(layers: Iterable[tuple[Layer, LayerWeights]], source: Path, out: Path) -> Path:
    """Write a changed network to `out` under the name of the `.param` file `source`; return the new `.param` file.

    It keeps the weights of one layer at a time in memory. The other files of `source`'s folder, `inputs.json` for
    example, are copied.
    """
    written: list[Layer] = []

    def remember() -> Iterable[tuple[Layer, LayerWeights]]:
        for layer, weights in layers:
            written.append(layer)
            yield layer, weights

    param = out / source.name
    write_weights(remember(), param.with_suffix(".bin"))
    write_param(ParamFile(tuple(written)), param)
    for path in sorted(source.parent.iterdir()):
        if path.is_file() and path not in (source, source.with_suffix(".bin")):
            copy_file(path, out / path.name)
    return param


def network_bytes(param: Path) -> int:
    """Return the size of a network's two files."""
    return param.stat().st_size + param.with_suffix(".bin").stat().st_size


def _misfit(layer: Layer, fact: str, fields: tuple[Field, ...]) -> ValueError:
    needs = ", ".join(f"{field.name} {list(field.shape)}" for field in fields) or "none"
    return ValueError(f"layer '{layer.name}' ({layer.type}): {fact}, ncnn reads {needs}")


def _read(content: NDArray[np.uint8], offset: int, field: Field, name: str) -> Weight:
    dtype: np.dtype[Any] = _FLOAT32
    start = offset
    if field.tagged:
        tag = int.from_bytes(content[offset : offset + 4].tobytes(), "little")
        if tag not in _DTYPES:
            raise StepError(f"{name}: byte {offset} has the unknown tag {tag:#010x}", _FIX)
        dtype = _DTYPES[tag]
        start += 4
    nbytes = field.count * dtype.itemsize
    end = start + _filled(nbytes)
    if end > len(content):
        raise StepError(f"{name}: ends at byte {end}, the file has {len(content)}", _FIX)
    values = content[start : start + nbytes].view(dtype).reshape(field.shape)
    return Weight(field.name, values, field.tagged, content[start + nbytes : end].tobytes())


def _chunks(weight: Weight) -> Iterator[bytes | memoryview]:
    if weight.tagged:
        yield TAGS[weight.values.dtype].to_bytes(4, "little")
    elif weight.values.dtype != np.float32:
        raise TypeError(f"{weight.name}: is {weight.values.dtype}, and has no tag to say so")
    yield np.ascontiguousarray(weight.values).reshape(-1).view(np.uint8).data
    missing = _filled(weight.values.nbytes) - weight.values.nbytes
    yield weight.padding if len(weight.padding) == missing else bytes(missing)


def _filled(nbytes: int) -> int:
    return (nbytes + 3) // 4 * 4

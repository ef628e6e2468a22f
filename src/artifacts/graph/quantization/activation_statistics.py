"""Per-channel statistics of a model's activations on speech: written by calibration, read by quantisers.

`statistics.json` lists the values and what they were measured on. `statistics.npz` contains their arrays, which are
read one value at a time: at 0.6 billion parameters they are about 200 MB.

`numpy.load` allocates what an array's header claims before it reads the array, and what compressed bytes expand to.
Here an array is read only if the archive stores its bytes uncompressed, so it takes no more memory than the file.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.digest import digest_file, digest_json
from artifacts.errors import StepError
from artifacts.graph.external_data import reference_of
from artifacts.graph.model_file import load_graph
from artifacts.graph.tensors import is_external, iter_tensors
from artifacts.untrusted.read_input import read_json, require_file
from artifacts.validation_errors import first_mistake

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX_NAME = "statistics.json"
ARRAYS_NAME = "statistics.npz"
# The key of the model's digest in `measured`.
MODEL_KEY = "model_sha256"
MAX_HEADER_BYTES = 4096

_CALIBRATE = "give a calibrated target, or calibrate again"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    value: str
    frames: int = Field(ge=1)


class _Index(BaseModel):
    """`statistics.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    measured: dict[str, float | int | str]
    values: list[_Entry]


@dataclass(frozen=True)
class ActivationStatistics:
    """Statistics of one value `[..., C]` over all frames of a corpus. A channel is an index of its last axis."""

    value: str
    frames: int
    # `[C]`: the exact smallest and largest number of each channel.
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    # `[C]`: a percentile of the magnitudes of each channel.
    percentile: NDArray[np.float32]
    # The same percentile of the magnitudes of all channels together.
    clip: float
    # `[R, C]`: sample frames, evenly spread over the corpus.
    rows: NDArray[np.float32]

    @property
    def abs_max(self) -> NDArray[np.float32]:
        """`[C]`: the exact largest magnitude of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


class StatisticsReader:
    """The statistics of a folder. The arrays of a value are read when they are requested."""

    def __init__(self, folder: Path) -> None:
        """Read the index. Raises StepError if the folder has no statistics, or a malformed index."""
        index, arrays = folder / INDEX_NAME, folder / ARRAYS_NAME
        if not (index.is_file() and arrays.is_file()):
            raise StepError(f"{folder.name}: has no {INDEX_NAME} and {ARRAYS_NAME}", _CALIBRATE)
        self._arrays = arrays
        try:
            content = _Index.model_validate(read_json(index, _CALIBRATE))
        except ValidationError as error:
            raise StepError(f"{INDEX_NAME}: {first_mistake(error)}", _CALIBRATE) from None
        self._frames = {entry.value: entry.frames for entry in content.values}
        self._index = {value: index for index, value in enumerate(self._frames)}
        self.measured = content.measured

    @property
    def values(self) -> list[str]:
        """Names of the values, in the order in which they were written."""
        return list(self._frames)

    def check_model(self, path: Path) -> None:
        """Raise StepError if the statistics were measured on another model than the one at `path`.

        A smoothed model has values of the same names as the model before it, with other numbers.
        """
        if self.measured.get(MODEL_KEY, digest := digest_model(path)) != digest:
            raise StepError(f"{path.name}: the statistics are those of another model", "calibrate on this model")

    def read(self, value: str) -> ActivationStatistics:
        """Return one value's statistics. Raises StepError for a value that was not measured, and for damaged arrays."""
        if value not in self._index:
            raise StepError(f"no statistics of the value '{value}'", "calibrate on this model")
        index = self._index[value]
        names = ("low", "high", "percentile", "clip", "rows")
        fields = read_arrays(self._arrays, [f"{index}.{name}" for name in names], _CALIBRATE)
        low, high, percentile, clip, rows = fields.values()
        channels = low.shape
        if (
            len(channels) != 1
            or not (high.shape == percentile.shape == channels and clip.shape == ())
            or not (rows.ndim == 2 and rows.shape[0] >= 1 and rows.shape[1:] == channels and channels[0] >= 1)
        ):
            shapes = ", ".join(f"{name} {list(one.shape)}" for name, one in zip(names, fields.values(), strict=True))
            raise StepError(f"{ARRAYS_NAME}: value '{value}': {shapes}: different numbers of channels", _CALIBRATE)
        for name, one in zip(names, fields.values(), strict=True):
            if not np.isfinite(one).all():
                raise StepError(f"{ARRAYS_NAME}: value '{value}': {name}: NaN or infinity", _CALIBRATE)
        if (low > high).any() or clip < 0 or (percentile < 0).any():
            raise StepError(f"{ARRAYS_NAME}: value '{value}': a range ends below its start", _CALIBRATE)
        return ActivationStatistics(value, self._frames[value], low, high, percentile, float(clip), rows)


def digest_model(path: Path) -> str:
    """Return the SHA-256, in hex, of the digests of a model's file and of its data files."""
    locations = {reference_of(tensor).location for tensor in iter_tensors(load_graph(path)) if is_external(tensor)}
    return digest_json([digest_file(file) for file in (path, *(path.parent / name for name in sorted(locations)))])


def write_statistics(
    folder: Path, statistics: Iterable[ActivationStatistics], measured: Mapping[str, float | int | str]
) -> None:
    """Write both files. `measured` says on what and how: the model's digest, seconds, recordings, settings."""
    values, arrays = [], {}
    for index, one in enumerate(statistics):
        values.append({"value": one.value, "frames": one.frames, "channels": len(one.low)})
        for name in ("low", "high", "percentile", "rows"):
            arrays[f"{index}.{name}"] = getattr(one, name)
        arrays[f"{index}.clip"] = np.float32(one.clip)
    np.savez(folder / ARRAYS_NAME, allow_pickle=False, **arrays)
    content = {"measured": dict(measured), "values": values}
    (folder / INDEX_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_arrays(path: Path, names: Sequence[str], fix: str) -> dict[str, NDArray[np.float32]]:
    """Read the named float32 arrays of any shape, in this order, from an `.npz` file as `numpy.savez` writes it.

    Raises StepError, with the `fix`, for a file that is not such an archive, and for an array that is missing,
    compressed, of another dtype, or of another size than its shape needs.
    """
    require_file(path, fix)
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _read(archive, name, f"{path.name}: array '{name}'", fix) for name in names}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise StepError(f"{path.name}: not an archive of arrays: {error}", fix) from None


def _read(archive: zipfile.ZipFile, name: str, label: str, fix: str) -> NDArray[np.float32]:
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise StepError(f"{label}: is missing", fix) from None
    if member.compress_type != zipfile.ZIP_STORED:
        raise StepError(f"{label}: is compressed, must be stored uncompressed", fix)
    with archive.open(member) as file:
        shape, is_fortran = _read_header(file, label, fix)
        data = file.read()
    if len(data) != 4 * prod(shape):
        raise StepError(f"{label}: has {len(data)} bytes, its shape {list(shape)} needs {4 * prod(shape)}", fix)
    values = np.frombuffer(data, np.float32)
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def _read_header(file: IO[bytes], label: str, fix: str) -> tuple[tuple[int, ...], bool]:
    """Return the shape in an array's header, and whether numbers along the first axis are adjacent (Fortran order)."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise StepError(f"{label}: has format {version}, must be (1, 0)", fix)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER_BYTES)
    if dtype != np.dtype("<f4") or not all(size >= 0 for size in shape):
        raise StepError(f"{label}: is {dtype} {list(shape)}, must be float32 numbers", fix)
    return tuple(shape), bool(fortran_order)

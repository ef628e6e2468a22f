"""What a model's activations were like on speech, channel by channel: written by calibration, read by quantisers.

`statistics.json` lists the values and says what they were measured on; `statistics.npz` holds their arrays, which are
read one value at a time: at 0.6 billion parameters they are some 200 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.digest import digest_file, digest_json
from artifacts.errors import StepError
from artifacts.graph.external_data import reference_of
from artifacts.graph.model_file import load_graph
from artifacts.graph.quantization.stored_arrays import read_arrays
from artifacts.graph.tensors import is_external, iter_tensors
from artifacts.untrusted.read_input import read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX_NAME = "statistics.json"
ARRAYS_NAME = "statistics.npz"
MODEL_KEY = "model_sha256"
"""Under it `measured` holds the digest of the model."""

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
    """One value `[..., C]` over all frames of a corpus; a channel is an index of its last axis."""

    value: str
    frames: int
    low: NDArray[np.float32]
    """`[C]`: the exact smallest number of each channel."""
    high: NDArray[np.float32]
    """`[C]`: the exact largest."""
    percentile: NDArray[np.float32]
    """`[C]`: a percentile of the magnitudes of each channel."""
    clip: float
    """The same percentile of the magnitudes of all channels together."""
    rows: NDArray[np.float32]
    """`[R, C]`: frames as they were, evenly spread over the corpus."""

    @property
    def abs_max(self) -> NDArray[np.float32]:
        """`[C]`: the exact largest magnitude of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


class StatisticsReader:
    """The statistics of a folder; each value's arrays are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises StepError if the folder holds none."""
        index, arrays = folder / INDEX_NAME, folder / ARRAYS_NAME
        if not (index.is_file() and arrays.is_file()):
            raise StepError(f"{folder.name}: holds no {INDEX_NAME} and {ARRAYS_NAME}", _CALIBRATE)
        self._arrays = arrays
        try:
            content = _Index.model_validate(read_json(index, _CALIBRATE))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(key) for key in first["loc"])
            raise StepError(f"{INDEX_NAME}: {place}: {first['msg'].lower()}", _CALIBRATE) from None
        self._frames = {entry.value: entry.frames for entry in content.values}
        self._places = {value: place for place, value in enumerate(self._frames)}
        self.measured = content.measured

    @property
    def values(self) -> list[str]:
        """The names of the values, in the order in which they were written."""
        return list(self._frames)

    def check_model(self, path: Path) -> None:
        """Raises StepError if the statistics were measured on another model than the one at `path`.

        A smoothed model has the values of the one it was made from by name, and other numbers in them.
        """
        if self.measured.get(MODEL_KEY, digest := digest_model(path)) != digest:
            raise StepError(f"{path.name}: the statistics are those of another model", "calibrate on this very model")

    def read(self, value: str) -> ActivationStatistics:
        """One value's statistics. Raises StepError for a value that was not measured, or whose arrays are damaged."""
        if value not in self._places:
            raise StepError(f"no statistics of the value '{value}'", "calibrate on this very model")
        place = self._places[value]
        names = ("low", "high", "percentile", "clip", "rows")
        fields = read_arrays(self._arrays, [f"{place}.{name}" for name in names], _CALIBRATE)
        low, high, percentile, clip, rows = fields.values()
        channels = low.shape
        if (
            len(channels) != 1
            or not (high.shape == percentile.shape == channels and clip.shape == ())
            or not (rows.ndim == 2 and rows.shape[0] >= 1 and rows.shape[1:] == channels and channels[0] >= 1)
        ):
            shapes = ", ".join(f"{name} {list(one.shape)}" for name, one in zip(names, fields.values(), strict=True))
            raise StepError(f"{ARRAYS_NAME}: value '{value}': {shapes}: not of one number of channels", _CALIBRATE)
        for name, one in zip(names, fields.values(), strict=True):
            if not np.isfinite(one).all():
                raise StepError(f"{ARRAYS_NAME}: value '{value}': {name}: NaN or infinity", _CALIBRATE)
        if (low > high).any() or clip < 0 or (percentile < 0).any():
            raise StepError(f"{ARRAYS_NAME}: value '{value}': its ranges end before they begin", _CALIBRATE)
        return ActivationStatistics(value, self._frames[value], low, high, percentile, float(clip), rows)


def digest_model(path: Path) -> str:
    """The sha256, in hex, of the digests of a model's file and of its data files."""
    locations = {reference_of(tensor).location for tensor in iter_tensors(load_graph(path)) if is_external(tensor)}
    return digest_json([digest_file(file) for file in (path, *(path.parent / name for name in sorted(locations)))])


def write_statistics(
    folder: Path, statistics: Iterable[ActivationStatistics], measured: Mapping[str, float | int | str]
) -> None:
    """Write both files. `measured` says on what and how: the model's digest, seconds, recordings, settings."""
    values, arrays = [], {}
    for place, one in enumerate(statistics):
        values.append({"value": one.value, "frames": one.frames, "channels": len(one.low)})
        for name in ("low", "high", "percentile", "rows"):
            arrays[f"{place}.{name}"] = getattr(one, name)
        arrays[f"{place}.clip"] = np.float32(one.clip)
    np.savez(folder / ARRAYS_NAME, allow_pickle=False, **arrays)
    index = {"measured": dict(measured), "values": values}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

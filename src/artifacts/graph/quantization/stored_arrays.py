"""Reads float32 arrays from an `.npz` file as `numpy.savez` writes it: a zip archive that compresses nothing.

`numpy.load` takes the memory that an array's head claims before it reads the array, and as much as compressed bytes
unfold to. Here an array is read if the archive holds its bytes as they are: it takes no more memory than the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from artifacts.errors import StepError
from artifacts.untrusted.read_input import require_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_HEAD_BYTES = 4096


def read_arrays(path: Path, names: Sequence[str], fix: str) -> dict[str, NDArray[np.float32]]:
    """Read the named arrays, float32 of any shape, in this order.

    Raises StepError, with the `fix`, for a file that is not such an archive, an array that is not there, is compressed,
    of another dtype, or of other bytes than its shape says.
    """
    require_file(path, fix)
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _read(archive, name, f"{path.name}: array '{name}'", fix) for name in names}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise StepError(f"{path.name}: not an archive of arrays: {error}", fix) from None


def _read(archive: zipfile.ZipFile, name: str, place: str, fix: str) -> NDArray[np.float32]:
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise StepError(f"{place}: is missing", fix) from None
    if member.compress_type != zipfile.ZIP_STORED:
        raise StepError(f"{place}: is compressed, and arrays are stored as they are", fix)
    with archive.open(member) as file:
        shape, by_columns = _read_head(file, place, fix)
        data = file.read()
    if len(data) != 4 * prod(shape):
        raise StepError(f"{place}: has {len(data)} bytes, its shape {list(shape)} needs {4 * prod(shape)}", fix)
    values = np.frombuffer(data, np.float32)
    return values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)


def _read_head(file: IO[bytes], place: str, fix: str) -> tuple[tuple[int, ...], bool]:
    """The shape that the head of an array tells, and whether its first axis is the one whose numbers are neighbours."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise StepError(f"{place}: is of format {version}, expected is (1, 0)", fix)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEAD_BYTES)
    if dtype != np.dtype("<f4") or not all(size >= 0 for size in shape):
        raise StepError(f"{place}: is {dtype} {list(shape)}, expected are float32 numbers", fix)
    return tuple(shape), bool(fortran_order)

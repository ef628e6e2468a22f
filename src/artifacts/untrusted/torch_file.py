"""Check a file that `torch.save` wrote, and the tensors in it, before torch maps the file.

torch trusts a file that it maps: it compares neither checksums nor the sizes of storages. An emptied storage takes its
values from the bytes after it. A pickle of some bytes can reserve any amount of memory. Here the pickle is read without
torch; it may name nothing but tensors, and no function of the file is called.

The format is torch's since 1.6: a zip of uncompressed records, `data.pkl` and one `data/<key>` for each storage.
"""

from __future__ import annotations

import struct
import zipfile
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from artifacts.untrusted.plain_pickle import PlainPickleError, read_plain

MAX_PICKLE_BYTES = 4_000_000
MAX_DIRECTORY_BYTES = 16_000_000
CHUNK_BYTES = 1 << 20

ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2,
    "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip
FLOATS = frozenset({"DoubleStorage", "FloatStorage", "HalfStorage", "BFloat16Storage"})


class TorchFileError(ValueError):
    """The file is damaged, of another format, or contradicts itself. The text says how, in one line."""


class ForeignObjectError(TorchFileError):
    """The file contains more than tensors, numbers, texts and collections of these."""


@dataclass(frozen=True)
class StoredTensor:
    """Description of a tensor in the file. `storage_type` is torch's name, `record` that of its values in the zip."""

    storage_type: str
    shape: tuple[int, ...]
    record: str

    @property
    def is_float(self) -> bool:
        """Whether the values are floating-point numbers."""
        return self.storage_type in FLOATS

    @property
    def byte_count(self) -> int:
        """Bytes of the values if none share memory."""
        count = ITEM_BYTES[self.storage_type]
        for size in self.shape:
            count *= size
        return count


def read_index(path: Path) -> Any:
    """Return the object in the file, with a StoredTensor in the place of each tensor.

    Memory: some hundred bytes for each tensor. Raises TorchFileError; ForeignObjectError for any other object.
    """
    with path.open("rb") as file, _opened(file) as archive:
        sizes = {_record(info): info.file_size for info in archive.infolist()}
        if sizes.get("data.pkl", MAX_PICKLE_BYTES + 1) > MAX_PICKLE_BYTES:
            raise TorchFileError(f"no data.pkl of at most {MAX_PICKLE_BYTES} bytes")
        (name,) = (info for info in archive.infolist() if _record(info) == "data.pkl")
        return _unpickled(_content(archive, name), sizes)


def check_records(path: Path, tensors: Collection[StoredTensor]) -> None:
    """Compare the checksum of each record with one of these tensors, and the bytes of all with the file's.

    Time: one pass over the records, in chunks of a megabyte. Raises TorchFileError, naming the record.
    """
    wanted = {tensor.record for tensor in tensors}
    total, size = sum(tensor.byte_count for tensor in tensors), path.stat().st_size
    # Tensors may share a storage; many large views of a small one would fill the memory when they are copied.
    if total > 2 * size + CHUNK_BYTES:
        raise TorchFileError(f"the tensors have {total} bytes of values, the file has {size}")
    with path.open("rb") as file, _opened(file) as archive:
        for info in archive.infolist():
            if _record(info) in wanted:
                _read_through(archive, info)


def load_tensors(path: Path) -> Any:
    """Return what torch reads from a file that `read_index` accepts; tensors on the CPU, mapped from the file.

    Raises TorchFileError for what torch refuses nevertheless.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TorchFileError(f"torch does not read it: {reason:.200}") from error


def _opened(file: IO[bytes]) -> zipfile.ZipFile:
    _check_directory(file)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise TorchFileError(f"the zip cannot be read: {error}"[:200]) from error
    records: set[str] = set()
    roots: set[str] = set()
    for info in archive.infolist():
        record = _record(info)
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise TorchFileError(f"record {record!r:.80} is compressed or encrypted")
        if record in records or info.filename != info.orig_filename:
            raise TorchFileError(f"record {record!r:.80} is there twice")
        records.add(record)
        roots.add(info.filename.partition("/")[0])
    if len(roots) > 1:
        raise TorchFileError(f"records are in {len(roots)} folders")
    return archive


def _record(info: zipfile.ZipInfo) -> str:
    """Return the name that torch's functions use: without the folder of all records."""
    return info.filename.partition("/")[2]


def _check_directory(file: IO[bytes]) -> None:
    """Check the zip's directory, which must be where torch looks for it, and refuse a large one before it is read."""
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        raise TorchFileError("not of the zip format that torch.save writes since 1.6")
    tail_bytes = min(size, 22 + 20 + 56)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes).rjust(22 + 20 + 56, b"\0")
    wide, locator, end = tail[:56], tail[56:76], tail[76:]
    if end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise TorchFileError("no zip directory at the end")
    directory_bytes, start = struct.unpack("<II", end[12:20])
    stop = size - 22
    if locator[:4] == b"PK\6\7":
        stop -= 20 + 56
        if wide[:4] != b"PK\6\6" or struct.unpack("<Q", locator[8:16])[0] != stop:
            raise TorchFileError("the zip directory is not at the end")
        directory_bytes, start = struct.unpack("<QQ", wide[40:56])
    if start + directory_bytes != stop or directory_bytes > MAX_DIRECTORY_BYTES:
        raise TorchFileError(f"the zip directory is not at the end, or above {MAX_DIRECTORY_BYTES} bytes")


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with _reading(archive, info) as member:
        return _checked(member, info, info.file_size)


def _read_through(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    with _reading(archive, info) as member:
        while _checked(member, info, CHUNK_BYTES):
            pass


def _reading(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(info)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, struct.error) as error:
        raise TorchFileError(f"record {_record(info)!r:.80} cannot be read: {error}"[:200]) from error


def _checked(member: IO[bytes], info: zipfile.ZipInfo, count: int) -> bytes:
    try:
        return member.read(count)
    except (zipfile.BadZipFile, EOFError) as error:
        raise TorchFileError(f"record {_record(info)!r:.80} is damaged: the checksum differs") from error


def _unpickled(text: bytes, sizes: dict[str, int]) -> Any:
    try:
        return read_plain(text, _found, lambda pid: _storage(pid, sizes))
    except TorchFileError:
        raise
    except PlainPickleError as error:
        raise ForeignObjectError(str(error)) from error
    except (ValueError, TypeError) as error:  # a function below got other arguments than torch writes
        raise ForeignObjectError(f"the pickle cannot be read: {error}"[:200]) from error


@dataclass(frozen=True)
class _Storage:
    type: str
    record: str
    count: int


def _found(module: str, name: str) -> Any:
    if module == "torch" and name in ITEM_BYTES:
        return name
    known = {
        ("collections", "OrderedDict"): _ordered,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
    }
    if (module, name) not in known:
        raise ForeignObjectError(f"contains a {f'{module}.{name}'!r:.80}, which is not a tensor")
    return known[module, name]


def _ordered() -> OrderedDict[Any, Any]:
    """Replace the class, which would copy a dictionary that is its argument."""
    return OrderedDict()


def _storage(pid: Any, sizes: dict[str, int]) -> _Storage:
    kind, storage_type, key, device, count = pid
    if not all(type(text) is str for text in (kind, storage_type, key, device)) or type(count) is not int:
        raise TorchFileError("a storage is not described as torch does")
    if kind != "storage" or storage_type not in ITEM_BYTES:
        raise TorchFileError("a storage is not described as torch does")
    record = f"data/{key}"
    claimed = count * ITEM_BYTES[storage_type]
    if sizes.get(record, -1) != claimed:
        found = sizes.get(record, "no record")
        raise TorchFileError(f"storage {key!r:.40} needs {claimed} bytes and has {found}")
    return _Storage(storage_type, record, count)


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any = False, hooks: Any = None, metadata: Any = None
) -> StoredTensor:
    """Replace torch's function, with its arguments."""
    is_shaped = type(shape) is type(stride) is tuple and len(shape) == len(stride)
    if not isinstance(storage, _Storage) or not is_shaped or type(grad) is not bool or hooks or metadata:
        raise TorchFileError("a tensor is not described as torch does")
    if not all(type(number) is int and 0 <= number < 2**62 for number in (offset, *shape, *stride)):
        raise TorchFileError("a tensor has a shape that is not of whole numbers")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and last >= storage.count:
        raise TorchFileError(f"a tensor of shape {shape!r:.60} reaches beyond its storage of {storage.count} values")
    return StoredTensor(storage.type, tuple(shape), storage.record)


def _parameter(tensor: Any, grad: Any = False, hooks: Any = None) -> Any:
    """Replace torch's function, with its arguments."""
    if not isinstance(tensor, StoredTensor) or type(grad) is not bool or hooks:
        raise TorchFileError("a parameter is not described as torch does")
    return tensor

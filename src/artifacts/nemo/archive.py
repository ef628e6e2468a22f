"""Read the files in a .nemo checkpoint: a tar (older ones gzipped) of configuration, weights and tokenizer.

Reading needs neither torch nor NeMo, and no more memory than the member that is read. A checkpoint is a download. The
sizes in its headers are bounded by the size of the file. Only regular files with flat names are members.

`tarfile` reads a header as long as it claims to be. It calls itself for each header that describes the next one, and
moves backwards for a negative size. One budget of bytes for all headers together bounds each of these.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from artifacts.errors import StepError
from artifacts.untrusted.trust import is_trusted

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

MOST_EXPANSION = 20
SLACK_BYTES = 1 << 20
# Five members with their headers take 8 KB.
MAX_HEADER_BYTES = 1 << 19
# A header that describes the next one has some 30 bytes, and `tarfile` takes quadratic time for it.
LONGEST_HEADER_BYTES = 512

_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
# Raised by `tarfile` for numbers and texts in headers that it cannot read.
_ODD_HEADER = (ValueError, OverflowError, RecursionError, LookupError, TypeError)
_FETCH_AGAIN = "fetch it again: an interrupted download, or an error page saved under this name, looks like this"
_NOT_NEMO = "give a .nemo file as NeMo's save_to writes it"


class BoundError(Exception):
    """The archive exceeds a bound. The text, which follows "the archive", says which."""


class Seekable(Protocol):
    """The methods of a file that `BoundedReader` uses."""

    def tell(self) -> int:
        """Return the position."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""

    def read(self, count: int, /) -> bytes:
        """Return at most `count` bytes."""


class BoundedReader:
    """Read `file` up to the position `end`; None stands for its own end.

    `header_bytes_left`: bytes that may still be read, in reads of at most 512; None once all headers are read.
    """

    def __init__(self, file: Seekable, end: int | None, header_bytes: int) -> None:
        self._file, self._end = file, end
        self.header_bytes_left: int | None = header_bytes

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self._file.tell()

    def seek(self, position: int) -> int:
        """Go to a position. Raises BoundError beyond the end."""
        self._check(position)
        return self._file.seek(position)

    def read(self, count: int) -> bytes:
        """Return at most `count` bytes. Raises BoundError beyond the end, or the bounds of headers."""
        if self.header_bytes_left is not None:
            self.header_bytes_left -= count
            if count > LONGEST_HEADER_BYTES or self.header_bytes_left < 0:
                raise BoundError("has too many members, or too long a header")
        self._check(self._file.tell() + count)
        return self._file.read(count)

    def _check(self, position: int) -> None:
        if self._end is not None and position > self._end:
            raise BoundError(f"unpacks to more than {self._end} bytes, out of proportion to its size")


class Archive:
    """An open checkpoint. Members have the names in NeMo's configuration: no `./`, no folders.

    `trusted`: the recipe trusts the sender. Methods raise StepError if the member is missing, or the archive turns out
    to be damaged.
    """

    def __init__(self, tar: tarfile.TarFile, reader: BoundedReader, name: str, trusted: bool) -> None:
        self._tar = tar
        self.name, self.trusted = name, trusted
        self._members: dict[str, tarfile.TarInfo] = {}
        with _damage_as_step_error(name):
            for member in _listed(tar):
                self._add(member)
            reader.header_bytes_left = None
            _check_end(tar)

    def read(self, member: str, max_bytes: int) -> bytes:
        """Return the whole member. Raises StepError if it is larger than `max_bytes`."""
        with _damage_as_step_error(self.name), self._open(member) as file:
            size = self._members[member].size
            if size > max_bytes:
                raise StepError(f"{self.name}: '{member}' has {size} bytes, at most {max_bytes} are read", _NOT_NEMO)
            return file.read()

    def extract(self, member: str, folder: Path) -> Path:
        """Copy the member into the folder, in chunks. Returns its path."""
        path = folder / member
        with _damage_as_step_error(self.name), self._open(member) as source, path.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return path

    def _add(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        parts = PurePosixPath(member.name).parts
        shown = f"{self.name}: the member {member.name!r:.80}"
        if not member.isfile() or member.issparse() or member.size < 0:
            raise StepError(f"{shown} is a link, a device or a sparse file", _NOT_NEMO)
        if len(parts) != 1 or parts[0] in ("..", "/") or not member.name.isprintable():
            raise StepError(f"{shown} is in a folder, or its name is not a plain one", _NOT_NEMO)
        if parts[0] in self._members:
            raise StepError(f"{shown} is there twice", _NOT_NEMO)
        self._members[parts[0]] = member

    def _open(self, member: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[member]) if member in self._members else None
        if file is None:
            raise StepError(f"{self.name}: no {member!r:.80} in the archive", _FETCH_AGAIN)
        return file


@contextmanager
def open_archive(checkpoint: Path) -> Iterator[Archive]:
    """Open a .nemo file. Raises StepError if it is not an archive, is damaged, or has unusual members."""
    name = checkpoint.name
    with ExitStack() as opened:
        try:
            file = opened.enter_context(checkpoint.open("rb"))
        except IsADirectoryError:
            raise StepError(f"{name}: a folder, where a .nemo file is needed", "give the checkpoint") from None
        is_gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if is_gzipped:
            most = MOST_EXPANSION * checkpoint.stat().st_size + SLACK_BYTES
            reader = BoundedReader(opened.enter_context(gzip.GzipFile(fileobj=file)), most, MAX_HEADER_BYTES)
        else:
            reader = BoundedReader(file, None, MAX_HEADER_BYTES)
        with _damage_as_step_error(name), _odd_header_as_damage():
            try:
                tar = opened.enter_context(tarfile.open(fileobj=reader, mode="r:"))  # type: ignore[call-overload]
            except _DAMAGE:
                raise StepError(f"{name}: not a .nemo checkpoint: it is not a tar archive", _FETCH_AGAIN) from None
        yield Archive(tar, reader, name, is_trusted(checkpoint))


def _listed(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members one by one, so that each is checked before the next header is read."""
    while True:
        with _odd_header_as_damage():
            member = tar.next()
        if member is None:
            return
        yield member


@contextmanager
def _odd_header_as_damage() -> Iterator[None]:
    try:
        yield
    except _ODD_HEADER as error:
        raise tarfile.ReadError(f"a header cannot be read: {type(error).__name__}") from error


@contextmanager
def _damage_as_step_error(name: str) -> Iterator[None]:
    try:
        yield
    except BoundError as error:
        raise StepError(f"{name}: the archive {error}", _NOT_NEMO) from None
    except _DAMAGE as error:
        raise StepError(f"{name}: the archive ends early or is damaged ({error})", _FETCH_AGAIN) from None


def _check_end(tar: tarfile.TarFile) -> None:
    """Check the zeros that end an archive: `tarfile` also takes a file cut inside a header or between two members."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")

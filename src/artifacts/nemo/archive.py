"""The files in a .nemo checkpoint: a tar (older ones gzipped) of the configuration, the weights and the tokenizer.

Reading it needs neither torch nor NeMo, and no more memory than the member that is read. A checkpoint is a download:
what its headers claim is bounded by the size of the file, and only flat names of regular files are members.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from artifacts.errors import StepError
from artifacts.nemo.bounded_reader import BoundedReader, BoundError
from artifacts.untrusted.trust import is_trusted

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

MOST_EXPANSION = 20
SLACK_BYTES = 1 << 20
# Five members with their headers take 8 KB.
MAX_HEADER_BYTES = 1 << 19

_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
# What `tarfile` raises for numbers and texts in headers that it cannot read.
_ODD_HEADER = (ValueError, OverflowError, RecursionError, LookupError, TypeError)
_FETCH_AGAIN = "fetch it again: an interrupted download, or an error page saved under this name, looks like this"
_NOT_NEMO = "give a .nemo file as NeMo's save_to writes it"


class Archive:
    """An open checkpoint. Member names are as NeMo's configuration has them: no `./`, no folders.

    `trusted`: the recipe trusts the sender. Methods raise StepError if the member is not there, or the archive turns
    out to be damaged.
    """

    def __init__(self, tar: tarfile.TarFile, reader: BoundedReader, name: str, trusted: bool) -> None:
        self._tar = tar
        self.name, self.trusted = name, trusted
        self._members: dict[str, tarfile.TarInfo] = {}
        with _damage_told(name):
            for member in _listed(tar):
                self._add(member)
            reader.header_bytes_left = None
            _check_end(tar)

    def read(self, member: str, max_bytes: int) -> bytes:
        """The whole member. Raises StepError if it is larger than `max_bytes`."""
        with _damage_told(self.name), self._open(member) as file:
            size = self._members[member].size
            if size > max_bytes:
                raise StepError(f"{self.name}: '{member}' has {size} bytes, at most {max_bytes} are read", _NOT_NEMO)
            return file.read()

    def extract(self, member: str, folder: Path) -> Path:
        """Copy the member into the folder, streamed. Returns its path."""
        path = folder / member
        with _damage_told(self.name), self._open(member) as source, path.open("xb") as target:
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
    """Open a .nemo file. Raises StepError if it is not an archive, a damaged one, or one with unusual members."""
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
        with _damage_told(name), _odd_headers_told():
            try:
                tar = opened.enter_context(tarfile.open(fileobj=reader, mode="r:"))  # type: ignore[call-overload]
            except _DAMAGE:
                raise StepError(f"{name}: not a .nemo checkpoint: no archive begins there", _FETCH_AGAIN) from None
        yield Archive(tar, reader, name, is_trusted(checkpoint))


def _listed(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members one by one, so that each is checked before the next header is read."""
    while True:
        with _odd_headers_told():
            member = tar.next()
        if member is None:
            return
        yield member


@contextmanager
def _odd_headers_told() -> Iterator[None]:
    try:
        yield
    except _ODD_HEADER as error:
        raise tarfile.ReadError(f"a header cannot be read: {type(error).__name__}") from error


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    try:
        yield
    except BoundError as error:
        raise StepError(f"{name}: the archive {error}", _NOT_NEMO) from None
    except _DAMAGE as error:
        raise StepError(f"{name}: the archive ends early or is damaged ({error})", _FETCH_AGAIN) from None


def _check_end(tar: tarfile.TarFile) -> None:
    """An archive ends with zeros. `tarfile` also takes a file that was cut inside a header, or between two members."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")

"""The files in a .nemo checkpoint: a tar (older ones gzipped) of the configuration, the weights and the tokenizer.

Reading it needs neither torch nor NeMo, and no more memory than the member that is read.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from artifacts.errors import StepError

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

_DAMAGE = (tarfile.ReadError, gzip.BadGzipFile, zlib.error, EOFError)
_FETCH_AGAIN = "fetch it again: an interrupted download, or an error page saved under this name, looks like this"


class Archive:
    """An open checkpoint. Member names are as NeMo's configuration has them: no `./`, no folders.

    Its methods raise StepError if the member is not there, or the archive turns out to be damaged.
    """

    def __init__(self, tar: tarfile.TarFile, name: str) -> None:
        self._tar = tar
        self.name = name
        with self._damage_told():
            self._members = {str(PurePosixPath(member.name)): member for member in tar.getmembers() if member.isfile()}
            _check_end(tar)

    def read(self, member: str) -> bytes:
        """The whole member."""
        with self._damage_told(), self._open(member) as file:
            return file.read()

    def extract(self, member: str, folder: Path) -> Path:
        """Copy the member into the folder, streamed. Returns its path."""
        path = folder / PurePosixPath(member).name
        with self._damage_told(), self._open(member) as source, path.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return path

    def extract_all(self, folder: Path) -> None:
        """Copy every member into the folder."""
        for member in self._members:
            self.extract(member, folder)

    def _open(self, member: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[member]) if member in self._members else None
        if file is None:
            raise StepError(f"{self.name}: no '{member}' in the archive", _FETCH_AGAIN)
        return file

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise StepError(f"{self.name}: the archive ends early or is damaged ({error})", _FETCH_AGAIN) from None


@contextmanager
def open_archive(checkpoint: Path) -> Iterator[Archive]:
    """Open a .nemo file. Raises StepError if it is not an archive, or a damaged one."""
    try:
        tar = tarfile.open(checkpoint, "r:*")  # noqa: SIM115  # closed below: an error while opening means another thing
    except IsADirectoryError:
        raise StepError(f"{checkpoint.name}: a folder, where a .nemo file is needed", "give the checkpoint") from None
    except _DAMAGE:
        raise StepError(f"{checkpoint.name}: not a .nemo checkpoint: no archive begins there", _FETCH_AGAIN) from None
    with tar:
        yield Archive(tar, checkpoint.name)


def _check_end(tar: tarfile.TarFile) -> None:
    """An archive ends with zeros. `tarfile` also takes a file that was cut inside a header, or between two members."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")

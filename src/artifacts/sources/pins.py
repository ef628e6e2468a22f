"""Pins of sources: the sha256 of a source, in its recipe or in the lock file of the project.

The lock file names a source by its address: the path of a file or folder, a URL without secrets, or `hf:` with
repository, revision and file. So recipes that share a source share its pin, and another address needs a new one.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
from pathlib import Path
from typing import Annotated, BinaryIO

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints

from artifacts.errors import StoreError
from artifacts.files.atomic import write_atomically
from artifacts.files.locks import lock_file
from artifacts.recipe.declarations import Sha256
from artifacts.recipe.pipeline import PIPELINE_FILE
from artifacts.recipe.recipe import NamedSource
from artifacts.recipe.validate import validate
from artifacts.recipe.yaml_locations import read_yaml

log = logging.getLogger(__name__)

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
LOCK_FILE = Path("pipeline.lock.yaml")
LOCK_HEADER = "# Digests of sources that no recipe pins: written on first use, compared afterwards. Commit this file.\n"


def pinned_digest(source: NamedSource) -> tuple[str | None, Path]:
    """Return the digest that a source is pinned to, and the file that pins it."""
    if source.declared.sha256 is not None:
        return source.declared.sha256, source.location("sha256").file
    pin = _read_lock(LOCK_FILE).get(source.address)
    return pin.sha256 if pin is not None else None, LOCK_FILE


def locked_commit(source: NamedSource) -> str | None:
    """Return the commit that a source's revision named when it was locked; None if the lock file has none."""
    pin = _read_lock(LOCK_FILE).get(source.address)
    return pin.commit if pin is not None else None


def lock_source(source: NamedSource, content: str, commit: str | None = None) -> None:
    """Write an unpinned source's content digest to the lock file; a pinned source stays as it is.

    `commit` is what a revision of the hub named. It is noted, and decides nothing.

    Raises `StoreError` if another process locked it to other bytes.
    """
    address = source.address
    if source.declared.sha256 is not None:
        return
    fix = f"pin the source in the recipe: write 'sha256: {content}' under sources.{source.name}"
    with _opened_for_lock(PIPELINE_FILE) as guard:
        lock_file(guard, Path.cwd(), fcntl.LOCK_EX, fix)  # two sources may be locked at the same time
        locked = _read_lock(LOCK_FILE)
        if address not in locked:
            pins = sorted({**locked, address: _Pin(sha256=content, commit=commit)}.items())
            dumped = {key: pin.model_dump(exclude_none=True) for key, pin in pins}
            body = yaml.safe_dump({"sources": dumped}, allow_unicode=True, width=1000)
            write_atomically(LOCK_FILE, (LOCK_HEADER + body).encode())
            log.info("%s: %s is now locked to sha256 %s", LOCK_FILE, address, content)
    check_pin(source, content)


def check_pin(source: NamedSource, content: str) -> None:
    """Raise `ChangedSourceError` if the content digest is not the pinned one."""
    pin, pinned_by = pinned_digest(source)
    if content != pin:
        shown = source.path if source.declared.is_local else source.shown
        change = "take its lines out of" if pinned_by == LOCK_FILE else "change the pin in"
        raise ChangedSourceError(
            f"{source.label}: '{shown}' has sha256 {content}, {pinned_by} pins {pin}",
            f"put the pinned bytes back, or {change} {pinned_by} if the new ones are right",
        )


def _opened_for_lock(path: Path) -> BinaryIO:
    """Open a file, for writing if possible: NFS locks only files that are open for writing."""
    try:
        return path.open("r+b")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return path.open("rb")


class ChangedSourceError(StoreError):
    """A source with other bytes than those that it is pinned to."""


class _Pin(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sha256: Sha256
    commit: Commit | None = None


class _Lock(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sources: dict[str, _Pin] = {}


def _read_lock(path: Path) -> dict[str, _Pin]:
    if not path.exists():
        return {}
    status = path.stat()
    return _read_lock_as_of(
        path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


@functools.lru_cache(maxsize=16)  # it is read for each source; a replaced lock file has another identity
def _read_lock_as_of(path: Path, _identity: tuple[int, ...]) -> dict[str, _Pin]:
    return validate(_Lock, read_yaml(path)).sources

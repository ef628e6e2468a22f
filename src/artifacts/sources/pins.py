"""Pins of sources: the sha256 of a source, in its recipe or in the lock file of the project.

The lock file names a source by its address: the path of a file or folder, a URL without secrets, or `hf:` with
repository, revision and file. So recipes that share a source share its pin, and another address needs a new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import logging
from collections.abc import Iterator
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
    if source.declared.sha256 is not None:
        return
    with _locked_for_change(source, content) as locked:
        if source.address not in locked:
            _write_lock({**locked, source.address: _Pin(sha256=content, commit=commit)})
            log.info("%s: %s is now locked to sha256 %s", LOCK_FILE, source.address, content)
    check_pin(source, content)


def replace_pin(source: NamedSource, content: str, commit: str | None = None) -> str | None:
    """Pin a source in the lock file to a content digest, whatever it is pinned to there.

    Return the digest that it was pinned to; None if there was none. `commit` is as in `lock_source`.
    """
    with _locked_for_change(source, content) as locked:
        before, now = locked.get(source.address), _Pin(sha256=content, commit=commit)
        if before != now:
            _write_lock({**locked, source.address: now})
    return before.sha256 if before is not None else None


def check_pin(source: NamedSource, content: str) -> None:
    """Raise `ChangedSourceError` if the content digest is not the pinned one."""
    pin, pinned_by = pinned_digest(source)
    if content != pin:
        shown = source.path if source.declared.is_local else source.shown
        if pinned_by == LOCK_FILE:
            change = f"if the new ones are right: doit pin {source.full_name}"
        else:
            change = f"write the new sha256 at {source.location('sha256')} if the new ones are right"
        raise ChangedSourceError(
            f"{source.label}: '{shown}' has sha256 {content}, {pinned_by} pins {pin}",
            f"put the pinned bytes back, or {change}",
        )


@contextlib.contextmanager
def _locked_for_change(source: NamedSource, content: str) -> Iterator[dict[str, _Pin]]:
    """Hold the lock on the lock file, and give the pins in it: two sources may be pinned at the same time."""
    fix = f"pin the source in the recipe: write 'sha256: {content}' under sources.{source.name}"
    with _opened_for_lock(PIPELINE_FILE) as guard:
        lock_file(guard, Path.cwd(), fcntl.LOCK_EX, fix)
        yield _read_lock(LOCK_FILE)


def _write_lock(pins: dict[str, _Pin]) -> None:
    dumped = {key: pin.model_dump(exclude_none=True) for key, pin in sorted(pins.items())}
    body = yaml.safe_dump({"sources": dumped}, allow_unicode=True, width=1000)
    write_atomically(LOCK_FILE, (LOCK_HEADER + body).encode())


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

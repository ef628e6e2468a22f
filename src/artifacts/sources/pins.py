"""Pins of sources: the sha256 of a source, in its recipe or in the lock file beside the recipe."""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
from pathlib import Path
from typing import BinaryIO

import yaml
from pydantic import BaseModel, ConfigDict

from artifacts.errors import StoreError
from artifacts.files.atomic import write_atomically
from artifacts.files.locks import lock_file
from artifacts.recipe.declarations import Sha256
from artifacts.recipe.recipe import NamedSource
from artifacts.recipe.validate import validate
from artifacts.recipe.yaml_locations import read_yaml

log = logging.getLogger(__name__)

LOCK_HEADER = "# Digests of sources that the recipe does not pin: written on first use, compared afterwards.\n"


def pinned_digest(source: NamedSource) -> tuple[str | None, Path]:
    """Return the digest that a source is pinned to, and the file that pins it."""
    if source.declared.sha256 is not None:
        return source.declared.sha256, source.location("sha256").file
    lock = source.loaded.lock_file
    return _read_lock(lock).get(source.name), lock


def lock_source(source: NamedSource, content: str) -> None:
    """Write an unpinned source's content digest to the lock file; a pinned source stays as it is.

    Raises `StoreError` if another process locked it to other bytes.
    """
    loaded, name = source.loaded, source.name
    if source.declared.sha256 is not None:
        return
    fix = f"pin the source in the recipe: write 'sha256: {content}' under sources.{name}"
    with _opened_for_lock(loaded.file) as guard:
        lock_file(guard, loaded.file.parent, fcntl.LOCK_EX, fix)  # two sources may be locked at the same time
        locked = _read_lock(loaded.lock_file)
        if name not in locked:
            body = yaml.safe_dump(
                {"sources": {name: {"sha256": value} for name, value in sorted({**locked, name: content}.items())}}
            )
            write_atomically(loaded.lock_file, (LOCK_HEADER + body).encode())
            log.info("%s: sources.%s is now locked to sha256 %s", loaded.lock_file, name, content)
    check_pin(source, content)


def check_pin(source: NamedSource, content: str) -> None:
    """Raise `StoreError` if the content digest is not the pinned one."""
    pin, pinned_by = pinned_digest(source)
    if content != pin:
        shown = source.path if source.declared.is_local else source.shown
        change = "take its line out of" if pinned_by == source.loaded.lock_file else "change the pin in"
        raise StoreError(
            f"{source.label}: '{shown}' has sha256 {content}, {pinned_by} pins {pin}",
            f"put the pinned bytes back, or {change} {pinned_by} if the new ones are right",
        )


def _opened_for_lock(recipe: Path) -> BinaryIO:
    """Open the recipe, for writing if possible: NFS locks only files that are open for writing."""
    try:
        return recipe.open("r+b")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return recipe.open("rb")


class _Pin(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sha256: Sha256


class _Lock(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sources: dict[str, _Pin] = {}


def _read_lock(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    status = path.stat()
    return _read_lock_as_of(
        path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


@functools.lru_cache(maxsize=16)  # it is read for each source; a replaced lock file has another identity
def _read_lock_as_of(path: Path, _identity: tuple[int, ...]) -> dict[str, str]:
    return {name: pin.sha256 for name, pin in validate(_Lock, read_yaml(path)).sources.items()}

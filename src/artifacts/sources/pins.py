"""Pins of sources: the sha256 that a recipe, or the lock file beside it, holds a source to."""

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
from artifacts.recipe.recipe import LoadedRecipe, Sha256, Source
from artifacts.recipe.validate import validate
from artifacts.recipe.yaml_locations import read_yaml
from artifacts.web_address import shown_url

log = logging.getLogger(__name__)

LOCK_HEADER = "# Digests of sources that the recipe does not pin, written on first use and held to afterwards.\n"


def pinned_digest(loaded: LoadedRecipe, name: str) -> tuple[str | None, Path]:
    """Return the digest that a source is pinned to, and the file that pins it."""
    source = loaded.recipe.sources[name]
    if source.sha256 is not None:
        return source.sha256, loaded.marked.place(("sources", name, "sha256")).file
    return _read_lock(loaded.lock_file).get(name), loaded.lock_file


def lock_source(loaded: LoadedRecipe, name: str, content: str) -> None:
    """Pin an unpinned source to this content digest from now on; one that is pinned already is left.

    Raises `StoreError` if it has been locked to other bytes meanwhile.
    """
    if loaded.recipe.sources[name].sha256 is not None:
        return
    fix = f"pin the source in the recipe: write 'sha256: {content}' under sources.{name}"
    with _opened_for_lock(loaded.file) as guard:
        lock_file(guard, loaded.file.parent, fcntl.LOCK_EX, fix)  # two sources may be used for the first time at once
        locked = _read_lock(loaded.lock_file)
        if name not in locked:
            body = yaml.safe_dump(
                {"sources": {name: {"sha256": value} for name, value in sorted({**locked, name: content}.items())}}
            )
            write_atomically(loaded.lock_file, (LOCK_HEADER + body).encode())
            log.info("%s: sources.%s is now locked to sha256 %s", loaded.lock_file, name, content)
    hold_to_pin(loaded, name, content)


def hold_to_pin(loaded: LoadedRecipe, name: str, content: str) -> None:
    """Raise `StoreError` if the content digest is not the one that the source is pinned to."""
    pin, pinned_by = pinned_digest(loaded, name)
    if content != pin:
        source = loaded.recipe.sources[name]
        shown = loaded.source_path(name) if source.is_local else shown_source(source)
        change = "take its line out of" if pinned_by == loaded.lock_file else "change the pin in"
        raise StoreError(
            f"{place_of(loaded, name)}: '{shown}' has sha256 {content}, {pinned_by} pins {pin}",
            f"put the pinned bytes back, or {change} {pinned_by} if the new ones are meant",
        )


def describe(source: Source) -> str:
    """A source in a few words, as `doit list` shows it."""
    return f"Source: {shown_source(source)}"


def shown_source(source: Source) -> str:
    """Return the address of a source without its secrets, or its path."""
    if source.hf is not None:
        return f"{source.file} of {source.hf}"
    return source.file or source.folder or shown_url(source.url or "")


def place_of(loaded: LoadedRecipe, name: str) -> str:
    """Return the place and the name of a source, as an error begins."""
    return f"{loaded.marked.place(('sources', name, '<key>'))}: sources.{name}"


def _opened_for_lock(recipe: Path) -> BinaryIO:
    """The recipe, open for writing where it can be: NFS locks no other file."""
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


@functools.lru_cache(maxsize=16)  # it is asked for each source anew; a lock file that is replaced is another file
def _read_lock_as_of(path: Path, _identity: tuple[int, ...]) -> dict[str, str]:
    return {name: pin.sha256 for name, pin in validate(_Lock, read_yaml(path)).sources.items()}

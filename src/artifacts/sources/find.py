"""Find the source of a target: a file, a folder, a URL, or a file of a Hugging Face repository, compared with its pin.

A source is pinned by the recipe, or by the project's lock file. A download is locked on arrival. A local file or folder
is locked once a step has read it, so that no pin is of damaged bytes that every step refuses. The same is true of a
download whose server does not say its length, because it may be cut off.
Downloads go to `cache/downloads/<sha256>/`, resume where they broke off, and are never made twice.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from artifacts.digest import digest_json
from artifacts.errors import StoreError
from artifacts.files.atomic import sync
from artifacts.files.locks import held
from artifacts.files.stamps import raise_error
from artifacts.recipe.declarations import Source
from artifacts.recipe.recipe import NamedSource
from artifacts.sources.pins import check_pin, lock_source, pinned_digest
from artifacts.store.digest_memory import DigestMemory
from artifacts.store.records import Manifest, manifest_of

if TYPE_CHECKING:
    from artifacts.sources.download import DownloadedFile, ProgressCallback

log = logging.getLogger(__name__)

# File systems allow 255; some that encrypt names allow fewer.
LONGEST_NAME_BYTES = 140


class MissingSourceError(StoreError):
    """A file or folder that is not there."""


@dataclass(frozen=True)
class ResolvedSource:
    """A source on this machine: path of the file or folder, content digest, and manifest."""

    path: Path
    content: str
    manifest: Manifest


def look_for_source(source: NamedSource, memory: DigestMemory, downloads: Path) -> ResolvedSource | None:
    """Return a source that is on this machine and pinned; None if it has to be fetched or locked first.

    Nothing is changed. Raises `MissingSourceError` for a file or folder that is missing, `ChangedSourceError` for one
    that has another digest than its pin, and `StoreError` for one that no step may read.
    """
    pin, _ = pinned_digest(source)
    if source.declared.is_local:
        resolved = local_source(source, memory)
        return resolved if pin is not None else None
    if pin is None:
        return None
    path = downloads / pin / _file_name(source.declared)
    if not path.is_file() or (memory.digest(path) != pin and memory.digest_anew(path) != pin):
        return None
    return _single(path, memory.digest)


def find_source(
    source: NamedSource,
    memory: DigestMemory,
    downloads: Path,
    progress: ProgressCallback,
    waiting: Callable[[], None] | None = None,
) -> ResolvedSource:
    """Return a source, downloaded if necessary, and compare it with its pin.

    An unpinned download is locked if it is certainly whole. `waiting` is called once if another process fetches it.
    Raises `StoreError` for a source that is missing, cannot be fetched, or has another digest than its pin.
    """
    if source.declared.is_local:
        return local_source(source, memory)
    partial = partial_folder(source.declared, downloads)
    with held(partial / "lock", waiting):  # after a wait, the other process has fetched it
        return _downloaded(source, memory, downloads, partial, progress)


def local_source(source: NamedSource, memory: DigestMemory) -> ResolvedSource:
    """Return a file or folder as it is now, and compare it with its pin if it has one. Nothing is changed.

    Raises `StoreError` for a source that is missing or has another digest than its pin. Before that, its bytes are
    read: remembered digests may be wrong.
    """
    resolved = _local(source, memory.digest)
    pin, _ = pinned_digest(source)
    if pin is not None and resolved.content != pin:
        resolved = _local(source, memory.digest_anew)
        check_pin(source, resolved.content)
    return resolved


def local_now(source: NamedSource, memory: DigestMemory) -> ResolvedSource:
    """Return a file or folder as it is now, whatever its pin says. Its bytes are read. Raises `StoreError`."""
    return _local(source, memory.digest_anew)


def source_content(path: Path, digest: Callable[[Path], str]) -> str:
    """Return the content digest of a file or folder, hashing files by `digest`. Raises `StoreError`, OSError."""
    return _folder_manifest(path, f"'{path}'", digest).content if path.is_dir() else digest(path)


def _local(source: NamedSource, digest: Callable[[Path], str]) -> ResolvedSource:
    path, hint = source.path, source.declared.hint
    kind = "file" if source.declared.file is not None else "folder"
    if not (path.is_file() if kind == "file" else path.is_dir()):
        raise MissingSourceError(f"{source.label}: no {kind} at '{path}'", hint or f"put the {kind} there")
    if kind == "file":
        return _single(path, digest)
    manifest = _folder_manifest(path, source.label, digest)
    if not manifest.files:
        raise StoreError(f"{source.label}: the folder '{path}' is empty", hint or "put its files there")
    return ResolvedSource(path.absolute(), manifest.content, manifest)


def _folder_manifest(path: Path, where: str, digest: Callable[[Path], str]) -> Manifest:
    files = _files_below(path, where)
    return manifest_of({str(file.relative_to(path)): (file.stat().st_size, digest(file)) for file in files})


def _files_below(folder: Path, where: str) -> Iterator[Path]:
    """Yield every file in the folder. Raises `StoreError` for what no manifest can list, or no digest would cover."""
    for parent, folders, names in os.walk(folder, onerror=raise_error):
        for path in (Path(parent, name) for name in folders):
            if path.is_symlink():  # a step would read files that no digest covers
                raise StoreError(f"{where}: '{path}' is a link to a folder", "put the folder itself there")
        for path in (Path(parent, name) for name in names):
            try:
                path.name.encode()
            except UnicodeEncodeError:
                raise StoreError(f"{where}: {path.name!a} is not a UTF-8 name", "rename the file") from None
            if not path.is_file():  # a step that opens a named pipe or a device would wait for ever
                raise StoreError(f"{where}: '{path}' is not a regular file", "take it out of the folder")
            yield path


def _file_name(source: Source) -> str:
    """Return the file name of a download: the last part of its address, with at most LONGEST_NAME_BYTES."""
    path = source.file or urlsplit(source.url or "").path
    name = re.sub(r"[\x00-\x1f\x7f\\]", "_", path.rstrip("/").rpartition("/")[2])
    if name in ("", ".", ".."):
        return "download"
    stem, dot, suffix = name.rpartition(".")
    if len(name.encode()) <= LONGEST_NAME_BYTES or not dot or len(suffix.encode()) > 20:
        return _first_bytes(name, LONGEST_NAME_BYTES)
    return f"{_first_bytes(stem, LONGEST_NAME_BYTES - 21)}.{suffix}"


def _first_bytes(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")


def _single(path: Path, digest: Callable[[Path], str]) -> ResolvedSource:
    """Return a source that is one file. Its content digest is that of its bytes; the name is not part of it."""
    content = digest(path)
    return ResolvedSource(path.absolute(), content, manifest_of({path.name: (path.stat().st_size, content)}))


def length_unknown(source: NamedSource, path: Path) -> str:
    """Return the warning about a download that may be cut off."""
    size = path.stat().st_size
    return (
        f"{source.label}: the server does not say the length of '{source.shown}': it may be cut off after {size} bytes"
    )


def partial_folder(source: Source, downloads: Path) -> Path:
    """Return the folder of a partial download. Its name is a digest, because an address may contain secrets."""
    return downloads / "partial" / digest_json(_address(source))[:16]


def is_resumable(partial: Path) -> bool:
    """Return whether the next run can continue the partial download in this folder."""
    from artifacts.sources import download  # only a download and `doit gc` need it

    return download.is_resumable(partial)


def _address(source: Source) -> list[str]:
    return [source.hf, source.file or ""] if source.hf is not None else [source.url or ""]


def _downloaded(
    source: NamedSource, memory: DigestMemory, downloads: Path, partial: Path, progress: ProgressCallback
) -> ResolvedSource:
    declared = source.declared
    pin, _ = pinned_digest(source)
    if pin is not None and (path := downloads / pin / _file_name(declared)).is_file():
        if memory.digest(path) == pin or memory.digest_anew(path) == pin:
            return _single(path, memory.digest)
        log.warning("%s was damaged and is fetched again", path)
        path.unlink()
    arrived = fetch(source, memory, downloads, partial, progress, pin)
    # The file is kept even if the pin differs: a corrected pin does not fetch it again.
    if not arrived.is_whole:
        log.warning("%s; it is locked once a step has read it", length_unknown(source, arrived.path))
    elif pin is None:
        lock_source(source, arrived.sha256, arrived.commit)
    if pin is not None or arrived.is_whole:
        check_pin(source, arrived.sha256)
    return _single(arrived.path, memory.digest)


def fetch(
    source: NamedSource,
    memory: DigestMemory,
    downloads: Path,
    partial: Path,
    progress: ProgressCallback,
    pin: str | None,
) -> DownloadedFile:
    """Fetch a source, and put the file among the downloads. A pin is compared with nothing here: see `download`.

    The caller holds the lock of the folder `partial`. Raises `StoreError`.
    """
    from artifacts.sources.download import download_url  # it takes longer to import than `doit list` may
    from artifacts.sources.hub import download_hf

    declared = source.declared
    try:
        if declared.hf is not None:
            arrived = download_hf(declared.hf, declared.file or "", partial, progress, pin)
        else:
            arrived = download_url(declared.url or "", partial, progress, pin)
    except StoreError as error:
        raise StoreError(f"{source.label}: {error.fact}", declared.hint or error.fix) from None
    path = downloads / arrived.sha256 / _file_name(declared)
    path.parent.mkdir(exist_ok=True)
    sync(arrived.path)
    arrived.path.replace(path)
    memory.note(path, arrived.sha256)
    return replace(arrived, path=path)

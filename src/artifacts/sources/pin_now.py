"""Pin a source to what is there now, in place of an earlier pin: after training, or when a revision has moved on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import RecipeError, StoreError
from artifacts.files.locks import held
from artifacts.recipe.recipe import NamedSource
from artifacts.sources.find import fetch, length_unknown, local_now, partial_folder
from artifacts.sources.pins import replace_pin
from artifacts.store.digest_memory import DigestMemory

if TYPE_CHECKING:
    from artifacts.sources.download import ProgressCallback

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewPin:
    """The sha256 that a source is pinned to now, and the one before; None for a source that had no pin."""

    sha256: str
    before: str | None


def pin_now(source: NamedSource, memory: DigestMemory, downloads: Path, progress: ProgressCallback) -> NewPin:
    """Pin a source in the lock file to the bytes that it has now.

    A file or folder is hashed. A file of the hub is pinned by what the hub says of it: the next run fetches it. Where
    the hub gives no sha256, and for a URL, the file is fetched here. Raises RecipeError for a source that its recipe
    pins to other bytes, and `StoreError` for one that is missing or cannot be fetched.
    """
    declared, commit = source.declared, None
    if declared.is_local:
        sha256 = local_now(source, memory).content
        if declared.sha256 == sha256:
            return NewPin(sha256, sha256)
    if declared.sha256 is not None:
        new = f"sha256: {sha256}" if declared.is_local else "the sha256 of the new file"
        fact = f"{source.location('sha256')}: sources.{source.name}.sha256: the recipe pins this source itself"
        raise RecipeError(fact, f"write there: {new}")
    if not declared.is_local:
        commit, sha256 = _remote_now(source, memory, downloads, progress)
    return NewPin(sha256, replace_pin(source, sha256, commit))


def _remote_now(
    source: NamedSource, memory: DigestMemory, downloads: Path, progress: ProgressCallback
) -> tuple[str | None, str]:
    """Return the commit and the sha256 of a download as its server has it now; no commit for a URL."""
    from artifacts.sources.hub import version_now  # it takes longer to import than `doit list` may

    declared = source.declared
    if declared.hf is not None:
        try:
            commit, sha256 = version_now(declared.hf, declared.file or "")
        except StoreError as error:
            raise StoreError(f"{source.label}: {error.fact}", declared.hint or error.fix) from None
        if sha256 is not None:
            return commit, sha256
    partial = partial_folder(declared, downloads)
    with held(partial / "lock"):
        (partial / "whole").unlink(missing_ok=True)  # what a killed run fetched may be outdated
        arrived = fetch(source, memory, downloads, partial, progress, pin=None)
    if not arrived.is_whole:
        log.warning("%s", length_unknown(source, arrived.path))
    return arrived.commit, arrived.sha256

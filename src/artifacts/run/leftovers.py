"""Removes what killed runs left on its way to a name, at the end of a run that is alone in the store."""

from __future__ import annotations

from pathlib import Path

from artifacts.files.atomic import UNFINISHED, remove
from artifacts.run.lookup import Lookup


def clear_leftovers(lookup: Lookup) -> None:
    """Remove staging folders and unfinished names of the store and of `dist/`.

    Raises `StoreError` while another build is at work, whose they may be; OSError for what cannot be removed.
    """
    if _leftovers(lookup):
        with lookup.store.alone():
            for path in _leftovers(lookup):
                remove(path)


def _leftovers(lookup: Lookup) -> list[Path]:
    unfinished = f".*{UNFINISHED}"
    in_cache = [path for pattern in (unfinished, f".state/{unfinished}") for path in lookup.cache.glob(f"*/{pattern}")]
    return [*lookup.cache.glob("staging/*"), *in_cache, *lookup.dist.glob(f"*/{unfinished}")]

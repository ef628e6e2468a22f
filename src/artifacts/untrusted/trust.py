"""Inputs of a step whose source says `trust: true`.

Trust decides whether a step runs, never what it writes: it is not part of an identity.
"""

from __future__ import annotations

from pathlib import Path

_trusted: set[Path] = set()


def trust(path: Path) -> None:
    """Trust a file, or a folder with all that it contains, in this process from now on."""
    _trusted.add(path.absolute())


def is_trusted(path: Path) -> bool:
    """Return whether the file, or a folder that contains it, is trusted."""
    absolute = path.absolute()
    return any(folder in _trusted for folder in (absolute, *absolute.parents))

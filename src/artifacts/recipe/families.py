"""Base recipes that come with the package, by the name that `extends:` gives them: `artifacts/parakeet-tdt`."""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = "artifacts/"
FOLDER = Path(__file__).parents[1] / "families"


def families() -> list[str]:
    """Return the names of all families."""
    return [f"{PREFIX}{path.stem}" for path in sorted(FOLDER.glob("*.yaml"))]


def family_file(name: str) -> Path | None:
    """Return the file of a family, relative to the working folder if it is inside; None for any other name."""
    family = name.removeprefix(PREFIX)
    if family == name or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", family):
        return None
    path = FOLDER / f"{family}.yaml"
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

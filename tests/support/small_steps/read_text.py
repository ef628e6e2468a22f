"""Read a text that ends.

Refuses one that was cut off.
"""

from __future__ import annotations

from pathlib import Path

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("PyYAML",)


class Params(StepParams):
    """Nothing to say."""


def run(out: Path, params: Params, *, text: Path) -> None:
    """Write `text.txt`. Raises StepError for a text without an end."""
    found = text.read_text()
    if not found.endswith("end\n"):
        raise StepError(f"{text.name}: the text has no end", "give the whole text")
    (out / "text.txt").write_text(found)

"""Change the case of a text.

In the middle of a chain, and now and then at its end.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from artifacts.params import StepParams

TOOLS = ("PyYAML",)


class Params(StepParams):
    """How to change it."""

    upper: bool = False
    suffix: str = ""
    seconds: float = Field(0.0, ge=0)


def run(out: Path, params: Params, *, text: Path, more: Path | None = None) -> None:
    """Write `text.txt`, from that of `text` and then of `more`."""
    # This comment can be reworded.
    time.sleep(params.seconds)
    folders = [text] if more is None else [text, more]
    joined = "".join(_read(folder) for folder in folders)
    changed = joined.upper() if params.upper else joined
    (out / "text.txt").write_text(changed + params.suffix)


def _read(folder: Path) -> str:
    """The text."""
    return (folder / "text.txt").read_text()

"""Take a text from a file.

The only small step whose input is a file and not a folder.
"""

from __future__ import annotations

from pathlib import Path

from artifacts.params import StepParams

TOOLS = ()


class Params(StepParams):
    """Nothing to say."""


def run(out: Path, params: Params, *, file: Path) -> None:
    """Write `text.txt`, the text of `file`."""
    (out / "text.txt").write_text(file.read_text())

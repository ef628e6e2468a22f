"""Take a source as a text.

It is read whole, after a while.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from artifacts.params import StepParams

TOOLS = ()


class Params(StepParams):
    """When to read it, and how often to repeat it."""

    seconds: float = Field(0.0, ge=0)
    times: int = Field(1, ge=1)


def run(out: Path, params: Params, *, source: Path) -> None:
    """Write `text.txt`."""
    time.sleep(params.seconds)
    files = [source] if source.is_file() else sorted(source.iterdir())
    (out / "text.txt").write_bytes(b"".join(file.read_bytes() for file in files) * params.times)

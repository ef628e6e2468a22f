"""Write a text.

The smallest step there is. It can take its time.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from pydantic import Field

from artifacts.params import StepParams

TOOLS = ("PyYAML",)
HEADLINE = ("lines",)

log = logging.getLogger(__name__)


class Params(StepParams):
    """What to write, and how long that takes."""

    text: str = "a"
    lines: int = Field(1, ge=1, lt=1000)
    seconds: float = Field(0.0, ge=0)


def run(out: Path, params: Params) -> dict[str, float | int | str]:
    """Write `text.txt`."""
    with (out / "text.txt").open("w") as file:
        for index in range(params.lines):
            log.info("writing", extra={"done": index, "total": params.lines})
            file.write(params.text + "\n")
            file.flush()
            time.sleep(params.seconds / params.lines)
    return {"lines": params.lines}

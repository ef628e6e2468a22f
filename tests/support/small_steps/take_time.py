"""Take some time.

Its metrics say when, so that a test can tell what ran side by side.
"""

from __future__ import annotations

import time
from pathlib import Path

from artifacts.params import StepParams

TOOLS = ()


class Params(StepParams):
    """How long."""

    seconds: float = 0.6
    name: str = ""


def run(out: Path, params: Params) -> dict[str, float | int | str]:
    """Write `text.txt`."""
    began = time.time()
    (out / "text.txt").write_text(params.name)
    time.sleep(params.seconds)
    return {"began": began, "ended": time.time()}

"""Look around.

Writes down all that a step can see of the world.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from artifacts.params import StepParams

TOOLS = ()


class Params(StepParams):
    """Nothing to say."""


def run(out: Path, params: Params) -> None:
    """Write `seen.json`."""
    here = [str(path) for path in Path().iterdir()]
    seen = {"environment": dict(os.environ), "here": here, "stdin": sys.stdin.read(), "files": str(out)}
    (out / "seen.json").write_text(json.dumps(seen))

"""Do what no step should.

Each way of ending that an engine has to survive.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ()

log = logging.getLogger(__name__)


class Params(StepParams):
    """How to misbehave."""

    how: Literal[
        "raise", "refuse", "exit", "nothing", "link", "segfault", "leave a child", "fill the disk", "blame no one",
        "eat memory", "not a number", "talk much", "edit the source",
    ]  # fmt: skip


def run(out: Path, params: Params, *, source: Path | None = None) -> dict[str, float | int | str] | None:
    """End badly, or nearly so."""
    log.info("misbehaving")
    (out / "partial.bin").write_bytes(b"partial")
    match params.how:
        case "raise":
            raise ValueError("a bug in a step")
        case "refuse":
            raise StepError("this input is not to my taste", "give me another")
        case "exit":
            os._exit(0)
        case "nothing":
            (out / "partial.bin").unlink()
        case "link":
            (out / "link").symlink_to("partial.bin")
        case "segfault":
            ctypes.string_at(0)
        case "leave a child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (out / "pid.txt").write_text(str(child.pid))
        case "fill the disk":
            with (out / "big.bin").open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
        case "blame no one":
            try:
                run(out, Params(how="fill the disk"))
            except OSError:
                raise RuntimeError("the writer failed") from None  # as torch does
        case "eat memory":
            raise MemoryError
        case "not a number":
            return {"metric": float("nan")}
        case "talk much":
            for index in range(2000):
                log.info("ä" * 5000, extra={"done": index})
        case "edit the source":
            assert source is not None
            source.write_text("edited while it was read\n")
    return None

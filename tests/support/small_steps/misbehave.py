"""Do what no step should.

Each way of ending that an engine has to survive.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
import subprocess
import sys
import time
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
        "eat memory", "not a number", "talk much", "edit the source", "fall silent", "babble", "answer by a pipe",
        "answer by a link", "answer without end", "answer too deep", "answer nonsense", "link its folder",
        "wait for the source", "read beside",
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
        case "wait for the source":
            assert source is not None
            before = source.read_bytes()
            (out / "waiting").touch()
            while source.read_bytes() == before:
                time.sleep(0.01)
        case "read beside":
            assert source is not None
            source.with_name("text.txt").read_bytes()
        case "fall silent":
            time.sleep(600)
        case "babble":
            _babble()
        case _:
            _answer_badly(out, params.how)
    return None


def _babble() -> None:
    """Write to the progress descriptor what is not a line of it."""
    descriptor = json.loads((Path("..") / "spec.json").read_bytes())["progress"]
    for line in (
        b"\xff\xfe",
        b"{",
        b"[1]",
        b"null",
        b'{"message": "still here", "done": 7, "total": "x"}',
        b"[" * 5000,
    ):
        os.write(descriptor, line + b"\n")


def _answer_badly(out: Path, how: str) -> None:
    """Answer in the child's place, or leave something else than a folder, and end."""
    result = out.parent / "result.json"
    match how:
        case "answer by a pipe":
            os.mkfifo(result)
        case "answer by a link":
            result.symlink_to("/dev/zero")
        case "answer without end":
            with result.open("wb") as file:
                file.truncate(1 << 40)
        case "answer too deep":
            result.write_text("[" * 100_000)
        case "answer nonsense":
            result.write_text(
                '{"metrics": {}, "compiled": {}, "seconds": [], "confined": {"files": "", "network": ""}}'
            )
        case "link its folder":
            shutil.rmtree(out)
            out.symlink_to("..")
            return
    os._exit(0)

"""How long the harnesses are: short by default, long where FAULTS=long; what they count goes to `$FAULTS_COUNTS`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

LONG = os.environ.get("FAULTS") == "long"
SEED = int(os.environ.get("FAULTS_SEED", "1000" if LONG else "0"))

KILLS = int(os.environ.get("FAULTS_COUNT", "220" if LONG else "10"))
FLIPS = int(os.environ.get("FAULTS_COUNT", "1000" if LONG else "25"))
ROTS = int(os.environ.get("FAULTS_COUNT", "200" if LONG else "5"))
DISK_ERRORS = int(os.environ.get("FAULTS_COUNT", "100000" if LONG else "20"))  # no more than a build makes calls
CROWD_SECONDS = int(os.environ.get("FAULTS_COUNT", "1200" if LONG else "10"))
CLOCKS = int(os.environ.get("FAULTS_COUNT", "60" if LONG else "4"))
EDITS = int(os.environ.get("FAULTS_COUNT", "60" if LONG else "4"))
TICKS = int(os.environ.get("FAULTS_COUNT", "20" if LONG else "1"))


def need_strace() -> None:
    """Skip the test where strace cannot trace, and say so; fail where CI is set."""
    missing = "strace is not installed"
    if shutil.which("strace"):
        tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
        missing = f"strace cannot trace: {tried.stderr}" if tried.returncode else ""
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(f"{missing}: what it is for was not checked")


def tell(harness: str, counts: Mapping[str, int]) -> None:
    """Print what was counted, and append it to the file that FAULTS_COUNTS names."""
    line = json.dumps({"harness": harness, "seed": SEED, **dict(sorted(counts.items()))})
    print(line)
    if path := os.environ.get("FAULTS_COUNTS"):
        with Path(path).open("a") as file:
            file.write(line + "\n")

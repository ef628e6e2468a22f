"""Runs code in a process of its own, since what confines a process confines it for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"

# Prints what became of an expression: its value, or the name of the error.
TELL = """
import os, signal, socket, sys
from pathlib import Path
def tell(work):
    try:
        print(work())
    except OSError as error:
        print(type(error).__name__)
"""


def tell_confined(folder: Path, first: str, *attempts: str) -> list[str]:
    """Run the lines `first` in `folder`, then each of `attempts`. Returns a line for each."""
    code = TELL + first + "\n" + "\n".join(f"tell(lambda: {attempt})" for attempt in attempts)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

"""Runs a program that may crash on a bad file in a process of its own: ncnn, sherpa-ncnn and pnnx abort where they err.

What it prints is kept for the error, which quotes the end of it shortly. Its threads are one: ncnn's wait by spinning,
and with more of them than free cores they take many times as long.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from artifacts.errors import StepError

MAX_REASON_CHARACTERS = 300
QUOTED_LINES = 2
SAID = "said.txt"
PR_SET_PDEATHSIG = 1
SOURCES = Path(__file__).parents[2]


def run_program(command: Sequence[str | Path], folder: Path, limit_seconds: float, fact: str, fix: str) -> None:
    """Run `command` in `folder` and wait for it; what it prints goes to `said.txt` there.

    Raises StepError, `fact` with how it ended and what it said last, if that is not with exit code 0 within the limit.
    """
    said = folder / SAID
    with said.open("wb") as output:
        try:
            done = subprocess.run(
                [str(word) for word in command],
                cwd=folder,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_seconds,
                check=False,
                preexec_fn=die_with_parent,
            )
        except subprocess.TimeoutExpired:
            raise StepError(f"{fact}: not done after {limit_seconds:.0f} s{_last_words(said)}", fix) from None
    if done.returncode:
        raise StepError(f"{fact}: {ending(done.returncode, said)}", fix)


def child_environment() -> dict[str, str]:
    """This process's own environment, for a child that runs this code with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCES)}


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it is gone: nothing may go on unseen."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def ending(code: int, said: Path) -> str:
    """How a process ended, in words, and the end of what it printed to `said`."""
    # A shell, and pnnx's own wrapper, turn a signal into 128 + its number.
    number = -code if code < 0 else code - 128
    names = {known.value: known.name for known in signal.Signals}
    how = f"ended by {names[number]}" if number in names else f"exit code {code}"
    return how + _last_words(said)


def _last_words(said: Path) -> str:
    """The last lines of what was printed, as one; the names of temporary folders would differ from run to run."""
    text = said.read_text(encoding="utf-8", errors="replace").replace(f"{said.parent}/", "")
    words = " ".join(" ".join(text.splitlines()[-QUOTED_LINES:]).split())
    if not words:
        return ""
    return f": {words}" if len(words) <= MAX_REASON_CHARACTERS else f": …{words[-MAX_REASON_CHARACTERS:]}"

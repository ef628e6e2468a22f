"""A failed try of a target: the fact for the journal, and the log of the step for the user."""

from __future__ import annotations

from pathlib import Path

from artifacts.errors import ArtifactsError, StepError, printable
from artifacts.run.run_step import StepCrashError
from artifacts.web_address import without_secrets

NO_ANSWER = "the step ended without an answer"


def fact_of(error: Exception) -> str:
    """Return the fact of an error; of a bug, the line that names the exception."""
    if isinstance(error, ArtifactsError):
        return error.fact
    is_crash = isinstance(error, StepCrashError)
    line = exception_line(str(error)) if is_crash else f"{type(error).__name__}: {error}".splitlines()[0]
    return printable(without_secrets(f"a bug: {line}"))


def exception_line(text: str) -> str:
    """Return the first line of the last exception in the output of a step; without a traceback, its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    begins = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    # A message may have several lines, and a library may print something after the traceback.
    unindented = [line for line in lines[begins[-1] + 1 :] if not line.startswith(" ")] if begins else []
    return (unindented or lines[-1:] or [NO_ANSWER])[0].strip()


def written_log(log: Path) -> Path | None:
    """Return the log of a step if anything is in it."""
    return log if log.is_file() and log.stat().st_size else None


def naming_log(error: StepError | StepCrashError, log: Path) -> StepError | StepCrashError:
    """Return the error of a step with its log in the fix, if anything is in it. The text of a crash is a log's end."""
    if isinstance(error, StepCrashError) or written_log(log) is None or str(log) in error.fix:
        return error
    return StepError(error.fact, f"{error.fix}; the step's output is in '{log}'")

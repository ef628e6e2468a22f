from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.run.failure import exception_line, fact_of, naming_log, written_log
from artifacts.run.run_step import StepCrashError

TRACEBACK = """\
a library talks
Traceback (most recent call last):
  File "a.py", line 1, in run
    import onnxx
ModuleNotFoundError: No module named 'onnxx'
"""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (TRACEBACK, "ModuleNotFoundError: No module named 'onnxx'"),
        (f"{TRACEBACK}\nand talks again\n", "ModuleNotFoundError: No module named 'onnxx'"),
        (
            f"{TRACEBACK}\nDuring handling of it:\nTraceback (most recent call last):\n  x\nE: of\ntwo lines\n",
            "E: of",
        ),
        ("metric 'x': must be a finite number\n", "metric 'x': must be a finite number"),
        ("Traceback (most recent call last):\n  cut", "cut"),
        (" \n", "the step ended without an answer"),
    ],
)
def test_the_line_that_names_the_exception_is_found_in_what_a_step_printed(output: str, line: str) -> None:
    assert exception_line(output) == line
    assert fact_of(StepCrashError(output)) == f"a bug: {line}"


def test_the_journal_keeps_a_fact_and_of_a_bug_its_exception() -> None:
    assert fact_of(StepError("x:a: it is wrong", "mend it")) == "x:a: it is wrong"
    assert fact_of(ValueError("one\ntwo")) == "a bug: ValueError: one"
    assert fact_of(StepCrashError("E: \x1b[31m https://me:secret@host/")) == r"a bug: E: \x1b[31m https://host/"


def test_the_log_is_named_where_it_says_something(tmp_path: Path) -> None:
    log, error = tmp_path / "a.log", StepError("it is wrong", "mend it")
    for _ in range(2):
        assert written_log(log) is None
        assert naming_log(error, log) is error
        log.touch()
    log.write_text("a library talks")
    assert written_log(log) == log
    named = naming_log(error, log)
    assert str(named) == f"it is wrong\n  fix: mend it; the step's output is in '{log}'"
    assert naming_log(named, log) is named
    crash = StepCrashError("a library talks")
    assert naming_log(crash, log) is crash

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.runtime.child_process import child_environment, run_program


def run(folder: Path, script: str, limit_seconds: float = 60) -> None:
    run_program([sys.executable, "-c", script], folder, limit_seconds, "model.pt: does not convert", "trace it again")


def test_what_a_program_prints_is_kept_in_a_file(tmp_path: Path) -> None:
    run(tmp_path, "import sys; print('to stdout', flush=True); print('to stderr', file=sys.stderr)")
    assert (tmp_path / "said.txt").read_text() == "to stdout\nto stderr\n"


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("raise SystemExit(139)", "ended by SIGSEGV"),
        ("raise SystemExit(255)", "exit code 255"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_program_that_fails_is_an_error_that_says_how_it_ended(tmp_path: Path, script: str, ending: str) -> None:
    with pytest.raises(StepError) as raised:
        run(tmp_path, script)
    assert (raised.value.fact, raised.value.fix) == (f"model.pt: does not convert: {ending}", "trace it again")


def test_the_last_two_lines_are_quoted_without_the_temporary_folder(tmp_path: Path) -> None:
    with pytest.raises(StepError) as raised:
        run(tmp_path, "import os; print('a'); print('b', 'c'); raise SystemExit(f'{os.getcwd()}/layer conv_1 failed')")
    assert raised.value.fact == "model.pt: does not convert: exit code 1: b c layer conv_1 failed"


def test_a_long_line_is_cut_at_its_beginning(tmp_path: Path) -> None:
    with pytest.raises(StepError) as raised:
        run(tmp_path, "raise SystemExit('x' * 5000 + 'end')")
    assert raised.value.fact.endswith("xxend")
    assert len(raised.value.fact) < 350


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StepError, match=r"model\.pt: does not convert: not done after 1 s: waiting"):
        run(tmp_path, "import time; print('waiting', flush=True); time.sleep(60)", limit_seconds=1)
    assert time.monotonic() - started < 30


def test_a_child_ends_with_its_parent() -> None:
    child = (
        "import time; from artifacts.runtime.child_process import die_with_parent; die_with_parent(); time.sleep(60)"
    )
    script = (
        "import subprocess, sys, time\n"
        f"process = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "time.sleep(3)\n"
        "print(process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=child_environment(), capture_output=True, text=True)
    status = Path(f"/proc/{int(done.stdout)}/status")
    for _ in range(50):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


def test_a_child_has_one_thread() -> None:
    assert child_environment()["OMP_NUM_THREADS"] == "1"

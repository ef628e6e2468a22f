from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import small_worker
from artifacts.errors import StepError
from artifacts.runtime.child_process import SOURCES, Worker, run_program


def run(folder: Path, script: str, limit_seconds: float = 60) -> None:
    run_program([sys.executable, "-c", script], folder, limit_seconds, "model.pt: does not convert", "trace it again")


def test_the_output_of_a_program_is_kept_in_a_file(tmp_path: Path) -> None:
    run(tmp_path, "import sys; print('to stdout', flush=True); print('to stderr', file=sys.stderr)")
    assert (tmp_path / "output.txt").read_text() == "to stdout\nto stderr\n"


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
def test_a_program_that_fails_is_an_error_with_its_ending(tmp_path: Path, script: str, ending: str) -> None:
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


def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StepError, match=r"model\.pt: does not convert: not done after 1 s: waiting"):
        run(tmp_path, "import time; print('waiting', flush=True); time.sleep(60)", limit_seconds=1)
    assert time.monotonic() - started < 30


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'started'); time.sleep(60)"
    script = (
        "import sys; from pathlib import Path; from artifacts.runtime.child_process import run_program\n"
        f"run_program([sys.executable, '-c', {child!r}], Path('.'), 60, '', '')"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    for _ in range(300):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    status = Path(f"/proc/{int((tmp_path / 'started').read_text())}/status")
    for _ in range(50):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


def test_a_child_has_one_thread_and_the_sources_of_this_package(tmp_path: Path) -> None:
    run(tmp_path, "import artifacts, os; print(os.environ['OMP_NUM_THREADS'], artifacts.__file__)")
    assert (tmp_path / "output.txt").read_text() == f"1 {SOURCES / 'artifacts' / '__init__.py'}\n"


def open_worker(*words: str) -> Worker:
    """A worker on `small_worker.serve`."""
    return Worker(small_worker.serve, words, 60, "a.param: ncnn", "convert it again")


@pytest.fixture(autouse=True)
def _children_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(small_worker.__file__).parent
    monkeypatch.setattr("artifacts.runtime.child_process.SOURCES", f"{SOURCES}:{folder}")


def test_a_worker_opens_a_model_once_and_answers_each_request() -> None:
    with open_worker("a", "b c") as worker:
        assert json.loads(worker.ask(b"1")) == ["a", "b c", "1"]
        assert json.loads(worker.ask(b"print")) == ["a", "b c", "print"]
        assert json.loads(worker.ask(b"")) == ["a", "b c", ""]
        large = b"x" * 5_000_000
        assert len(worker.ask(large)) > len(large)


def test_an_error_of_a_worker_is_raised_here() -> None:
    with pytest.raises(StepError) as raised, open_worker("no model"):
        pass
    assert (raised.value.fact, raised.value.fix) == ("no model: is damaged", "copy it again")
    with open_worker("a") as worker, pytest.raises(StepError, match="no blob 'x'"):
        worker.ask(b"fail")


def test_a_worker_that_dies_or_hangs_is_an_error_with_its_ending() -> None:
    with open_worker("a") as worker, pytest.raises(StepError) as raised:
        worker.ask(b"die")
    assert raised.value.fact == ("a.param: ncnn fails to run it: ended by SIGABRT: segmentation fault in layer conv_1")
    assert raised.value.fix == "convert it again"
    with open_worker("a") as worker:
        worker._limit_seconds = 1
        started = time.monotonic()
        with pytest.raises(StepError, match=r"^a\.param: ncnn fails to run it: not done after 1 s"):
            worker.ask(b"hang")
        assert time.monotonic() - started < 30

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.run.child import peak_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A staging folder, as `run_step` makes it."""
    for name in ("files", "work", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def ask(
    folder: Path, package: Path, step: str, params: dict[str, Any], parent: int | None = None
) -> tuple[int, list[str]]:
    """Start the child for a step. Returns its exit code and the lines of progress."""
    read_end, write_end = os.pipe()
    spec = {
        "step": step,
        "params": params,
        "inputs": {},
        "tools": {},
        "trusted": [],
        "stamps": {},
        "own_steps": "",
        "readable": [],
        "parent": parent or os.getpid(),
        "progress": write_end,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-m", "artifacts.run.child", str(folder)],
        cwd=folder / "work",
        env={"PYTHONPATH": str(package)},
        pass_fds=(write_end,),
        capture_output=True,
    )
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        return done.returncode, lines.read().splitlines()


def answer(folder: Path) -> dict[str, Any]:
    """Return the answer of the child."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    return result


def test_the_answer_lists_metrics_seconds_memory_processor_and_what_confined_it(folder: Path, package: Path) -> None:
    code, said = ask(folder, package, "write_text", {"text": "x", "lines": 2})
    assert code == 0
    result = answer(folder)
    assert set(result) == {"metrics", "seconds", "peak_bytes", "processor", "confined", "compiled"}
    assert (folder / "files" / "text.txt").read_text() == "x\nx\n"
    assert [json.loads(line) for line in said] == [
        {"message": "writing", "done": index, "total": 2} for index in (0, 1)
    ]


def test_the_source_runs_and_not_older_bytecode_of_the_same_second(folder: Path, package: Path) -> None:
    own = folder / "package"
    shutil.copytree(package, own)
    step = own / "artifacts" / "steps" / "write_text.py"
    stale = step.read_text()
    py_compile.compile(str(step))
    step.write_text(stale.replace('"text.txt"', '"tixt.txt"'))
    os.utime(step, ns=(step.stat().st_atime_ns, package.joinpath("artifacts/steps/write_text.py").stat().st_mtime_ns))
    assert ask(folder, own, "write_text", {"text": "x"})[0] == 0
    assert [path.name for path in (folder / "files").iterdir()] == ["tixt.txt"]


def test_a_mistake_of_the_user_is_an_answer_too(folder: Path, package: Path) -> None:
    assert ask(folder, package, "misbehave", {"how": "refuse"})[0] == 0
    assert answer(folder) == {
        "error": {"kind": "StepError", "fact": "this input is not to my taste", "fix": "give me another"}
    }


def test_a_bug_has_no_answer(folder: Path, package: Path) -> None:
    assert ask(folder, package, "misbehave", {"how": "raise"})[0] == 1
    assert not (folder / "result.json").exists()


def test_a_child_without_its_parent_does_nothing(folder: Path, package: Path) -> None:
    code, _ = ask(folder, package, "write_text", {}, parent=1)
    assert code == 1
    assert list((folder / "files").iterdir()) == []


def test_every_line_of_progress_is_whole_however_long_the_message(folder: Path, package: Path) -> None:
    reader_would_block = 1 << 20  # a pipe contains fewer than 2000 long messages, so these must be short
    code, said = ask_while_reading(folder, package)
    assert code == 0
    lines = [json.loads(line) for line in said]
    assert len(lines) == 2001
    assert sum(len(line) for line in said) > reader_would_block
    assert [line["done"] for line in lines[1:]] == list(range(2000))


def ask_while_reading(folder: Path, package: Path) -> tuple[int, list[str]]:
    """Do as `ask`, for a step with more progress than a pipe can contain."""
    read_end, write_end = os.pipe()
    spec = {"step": "misbehave", "params": {"how": "talk much"}, "inputs": {}, "tools": {}, "trusted": [], "stamps": {},
            "own_steps": "", "readable": [], "parent": os.getpid(), "progress": write_end}  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "artifacts.run.child", str(folder)]
    with subprocess.Popen(command, cwd=folder, env={"PYTHONPATH": str(package)}, pass_fds=(write_end,)) as process:
        os.close(write_end)
        with os.fdopen(read_end) as lines:
            said = lines.read().splitlines()
    return process.returncode, said


def test_the_peak_is_this_process_s_own() -> None:
    before = peak_bytes()
    block = bytearray(200 << 20)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    del block
    assert peak_bytes() >= max(before, 200 << 20)

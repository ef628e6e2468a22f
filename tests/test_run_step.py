from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts import run_step as module
from artifacts.digest import digest_file
from artifacts.errors import StepError
from artifacts.run_step import StepCrashError, StepResult, run_step


class Run:
    """Runs a step in a folder, and keeps what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[str, int | None, int | None]] = []
        self.log = folder / "logs" / "step.log"

    def __call__(
        self, step: str, params: dict[str, Any], tools: dict[str, str] | None = None, **inputs: Path
    ) -> StepResult:
        staging = self.folder / f"staging{len(list(self.folder.iterdir()))}"
        staging.mkdir()
        return run_step(staging, self.log, step, params, inputs, tools or {}, lambda *words: self.said.append(words))


@pytest.fixture
def run(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the small steps."""
    monkeypatch.setitem(module.FIXED, "PYTHONPATH", str(package))
    return Run(tmp_path)


def test_a_step_gives_files_metrics_and_what_it_took(run: Run) -> None:
    result = run("write_text", {"text": "x", "lines": 3, "seconds": 0.3})
    [path] = run.folder.glob("staging*/files/text.txt")
    assert path.read_text() == "x\n" * 3
    assert result.files == {"text.txt": (6, digest_file(path))}
    assert path.stat().st_mode & 0o777 == 0o444
    assert result.metrics == {"lines": 3}
    assert 0.3 <= result.seconds < 10
    assert 5_000_000 < result.peak_bytes < 500_000_000


def test_inputs_reach_the_step_by_their_names(run: Run) -> None:
    (run.folder / "a").mkdir()
    (run.folder / "a" / "text.txt").write_text("a")
    result = run("change_text", {"upper": True}, text=run.folder / "a", more=run.folder / "a")
    assert result.files["text.txt"][0] == 2


def test_progress_comes_while_the_step_runs(run: Run) -> None:
    came: list[float] = []

    class Said(list[tuple[str, int | None, int | None]]):
        """Notes when it was told."""

        def append(self, words: tuple[str, int | None, int | None]) -> None:
            came.append(time.monotonic())
            super().append(words)

    run.said = Said()
    run("write_text", {"lines": 3, "seconds": 0.6})
    assert run.said == [("writing", 0, 3), ("writing", 1, 3), ("writing", 2, 3)]
    assert came[2] - came[0] > 0.25


def test_a_step_sees_a_fixed_environment_and_an_empty_folder_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("LC_ALL", "de_DE")
    run("look_around", {})
    [path] = run.folder.glob("staging*/files/seen.json")
    seen = json.loads(path.read_text())
    assert seen["here"] == []
    assert seen["stdin"] == ""
    assert set(seen["environment"]) <= {*module.PASSED_ON, *module.FIXED, "TMPDIR", "PYDANTIC_DISABLE_PLUGINS"}
    assert seen["environment"]["LC_ALL"] == "C.UTF-8"
    assert seen["environment"]["PYTHONHASHSEED"] == "0"
    assert Path(seen["environment"]["TMPDIR"]).is_relative_to(run.folder)


@pytest.mark.parametrize(
    ("how", "kind", "fact"),
    [
        ("refuse", StepError, "this input is not to my taste"),
        ("eat memory", StepError, "memory ran out"),
        ("segfault", StepError, r"ended by SIGSEGV at \d+\.\d GiB while misbehaving"),
        ("raise", StepCrashError, "ValueError: a bug in a step"),
        ("nothing", StepCrashError, "the step wrote no file"),
        ("link", StepCrashError, "'link', which is a link or no regular file"),
        ("not a number", StepCrashError, "metric 'metric' of step 'misbehave' is nan"),
        ("exit", StepCrashError, "^$"),
    ],
)
def test_a_step_that_ends_badly_is_told_by_what_it_did(run: Run, how: str, kind: type[Exception], fact: str) -> None:
    with pytest.raises(kind, match=fact):
        run("misbehave", {"how": how})


def test_a_tool_of_another_version_or_none_stops_the_step_before_it_begins(run: Run) -> None:
    with pytest.raises(StepError, match=r"'pydantic' is .* here, pinned is 0.1"):
        run("write_text", {}, {"pydantic": "0.1"})
    with pytest.raises(StepError, match=r"'no-such-tool' is not installed, pinned is 1.0"):
        run("write_text", {}, {"no-such-tool": "1.0"})
    assert not list(run.folder.glob("staging*/files/*"))


def test_a_local_version_is_the_version(run: Run, package: Path) -> None:
    metadata = package / "torchlike-2.13.0+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torchlike\nVersion: 2.13.0+cpu\n")
    assert run("write_text", {}, {"torchlike": "2.13.0"}).files
    assert run("write_text", {}, {"torchlike": "2.13.0+cpu"}).files
    with pytest.raises(StepError, match=r"pinned is 2\.13"):
        run("write_text", {}, {"torchlike": "2.13"})


def test_what_is_printed_goes_to_the_log(run: Run) -> None:
    with pytest.raises(StepCrashError):
        run("misbehave", {"how": "raise"})
    assert "Traceback (most recent call last):" in run.log.read_text()


def test_steps_run_from_many_threads_at_once(run: Run) -> None:
    results: list[StepResult] = []
    folders = [run.folder / f"thread{index}" for index in range(4)]

    def work(folder: Path) -> None:
        folder.mkdir()
        results.append(Run(folder)("write_text", {"text": folder.name, "seconds": 0.1}))

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.files["text.txt"] for result in results}) == 4

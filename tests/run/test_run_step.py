from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts.digest import digest_file
from artifacts.errors import StepError
from artifacts.run import run_step as module
from artifacts.run.run_step import Limits, StepCrashError, StepResult, run_step
from artifacts.sandbox.landlock import landlock_version

# Before version 6, Landlock does not keep a process from signalling others.
SCOPED = {"signal a parent"} if landlock_version() < 6 else set()


class Run:
    """Run a step in a folder, and record its progress."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[str, int | None, int | None]] = []
        self.log = folder / "logs" / "step.log"
        self.limits = Limits(minutes=5, silent_minutes=5)

    def __call__(
        self, step: str, params: dict[str, Any], tools: dict[str, str] | None = None, **inputs: Path
    ) -> StepResult:
        staging = self.folder / f"staging{len(list(self.folder.iterdir()))}"
        staging.mkdir()
        said, limits = (lambda *words: self.said.append(words)), self.limits
        return run_step(staging, self.log, step, params, inputs, tools or {}, said, limits)


@pytest.fixture
def run(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A runner of the small steps."""
    monkeypatch.setitem(module.FIXED, "PYTHONPATH", str(package))
    return Run(tmp_path)


def test_a_step_gives_files_metrics_seconds_and_memory(run: Run) -> None:
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
    times: list[float] = []

    class TimedProgress(list[tuple[str, int | None, int | None]]):
        """List that records the time of each message."""

        def append(self, words: tuple[str, int | None, int | None]) -> None:
            times.append(time.monotonic())
            super().append(words)

    run.said = TimedProgress()
    run("write_text", {"lines": 3, "seconds": 0.6})
    assert run.said == [("writing", 0, 3), ("writing", 1, 3), ("writing", 2, 3)]
    assert times[2] - times[0] > 0.25


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
    assert set(seen["environment"]) <= {
        *module.PASSED_ON, *module.FIXED, "TMPDIR", "HOME", "PYTHONUSERBASE", "PYDANTIC_DISABLE_PLUGINS",
    }  # fmt: skip
    assert seen["environment"]["LC_ALL"] == "C.UTF-8"
    assert seen["environment"]["PYTHONHASHSEED"] == "0"
    assert Path(seen["environment"]["TMPDIR"]).is_relative_to(run.folder)
    assert Path(seen["environment"]["HOME"]).is_relative_to(run.folder)


@pytest.mark.parametrize(
    ("how", "kind", "fact"),
    [
        ("refuse", StepError, "this input is not to my taste"),
        ("eat memory", StepError, "memory ran out"),
        ("segfault", StepError, r"ended by SIGSEGV at \d+\.\d GiB while misbehaving"),
        ("raise", StepCrashError, "ValueError: a bug in a step"),
        ("nothing", StepCrashError, "the step wrote no file"),
        ("link", StepCrashError, "'link', which is not a regular file, or has two names"),
        ("not a number", StepCrashError, "metric 'metric': must be a finite number or a text, got nan"),
        ("exit", StepCrashError, "^$"),
        ("answer by a pipe", StepCrashError, "^$"),
        ("answer by a link", StepCrashError, "^$"),
        ("answer without end", StepCrashError, "^$"),
        ("answer too deep", StepCrashError, "^$"),
        ("answer nonsense", StepCrashError, "the step's answer is malformed: TypeError"),
        ("link its folder", StepCrashError, "replaced its folder by something else"),
    ],
)
def test_a_step_that_ends_badly_is_reported_with_its_cause(
    run: Run, how: str, kind: type[Exception], fact: str
) -> None:
    with pytest.raises(kind, match=fact):
        run("misbehave", {"how": how})


def test_a_step_that_never_ends_is_stopped_at_its_limit(run: Run) -> None:
    run.limits = Limits(minutes=0.03, silent_minutes=5)
    with pytest.raises(StepError, match=r"^stopped after 0\.03 minutes, its limit, while writing\n") as told:
        run("write_text", {"lines": 600, "seconds": 60})
    assert told.value.fix.startswith("raise resources.minutes of this target, or read '")


def test_a_step_without_progress_is_stopped_and_one_that_reports_is_not(run: Run) -> None:
    run.limits = Limits(minutes=5, silent_minutes=0.03)
    assert run("write_text", {"lines": 40, "seconds": 4}).seconds >= 4
    with pytest.raises(
        StepError, match=r"^stopped after 0\.03 minutes without progress, its limit, while misbehaving\n"
    ):
        run("misbehave", {"how": "fall silent"})


def test_a_line_that_is_not_progress_is_ignored(run: Run) -> None:
    assert run("misbehave", {"how": "babble"}).files
    assert run.said == [("misbehaving", None, None), ("still here", 7, None)]


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_a_step_gets_no_secret_no_file_of_others_and_no_socket(run: Run) -> None:
    home = run.folder / "home"
    (home / "empty").mkdir(parents=True)
    for name in ("secret", "victim", "source"):
        (home / name).write_text(name)
    (home / "victim").chmod(0o600)
    before = (home / "victim").stat()
    server = socket.create_server(("127.0.0.1", 0))
    reached = {
        "secret": str(home / "secret"),
        "folder": str(home / "empty"),
        "victim": str(home / "victim"),
        "port": server.getsockname()[1],
    }
    with server:
        result = run("reach_out", reached, source=home / "source")
    assert result.unconfined == ()
    [path] = run.folder.glob("staging*/files/came.json")
    times = json.loads(path.read_text())
    assert {name for name, how in times.items() if how == "done"} == {"read an input"} | SCOPED
    assert len(times) == 21
    after = (home / "victim").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, before.st_size)
    assert sorted(found.name for found in home.rglob("*")) == ["empty", "secret", "source", "victim"]


def test_a_tool_of_another_version_or_none_stops_the_step_before_it_begins(run: Run) -> None:
    with pytest.raises(StepError, match=r"'pydantic' has version .*, and constraints.txt pins 0.1"):
        run("write_text", {}, {"pydantic": "0.1"})
    with pytest.raises(StepError, match=r"'no-such-tool' is not installed, and constraints.txt pins 1.0"):
        run("write_text", {}, {"no-such-tool": "1.0"})
    assert not list(run.folder.glob("staging*/files/*"))


def test_a_local_version_is_the_version(run: Run, package: Path) -> None:
    metadata = package / "torchlike-2.13.0+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torchlike\nVersion: 2.13.0+cpu\n")
    assert run("write_text", {}, {"torchlike": "2.13.0"}).files
    assert run("write_text", {}, {"torchlike": "2.13.0+cpu"}).files
    with pytest.raises(StepError, match=r"pins 2\.13"):
        run("write_text", {}, {"torchlike": "2.13"})


def test_printed_text_goes_to_the_log(run: Run) -> None:
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


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": float("inf")}, {"seconds": float("nan")}, {"seconds": 10**400}, {"peak_bytes": float("inf")},
        {"peak_bytes": 10**400}, {"peak_bytes": -(10**18)}, {"metrics": {"wer_percent_a": 10**400}},
        {"metrics": {"\ud800": 1}}, {"metrics": {"a": "\ud800"}}, {"processor": "\ud800"},
    ],
)  # fmt: skip
def test_an_answer_that_no_record_can_hold_is_a_crash_of_the_step(change: dict[str, Any]) -> None:
    good = {
        "metrics": {"a": 1, "b": -1.5, "c": "x"}, "compiled": {}, "seconds": 1.0, "peak_bytes": 10, "processor": "x",
        "confined": {"files": "Landlock", "network": "seccomp"},
    }  # fmt: skip
    assert module._checked(good, {}).metrics == good["metrics"]
    with pytest.raises(StepCrashError, match="the step's answer is malformed: "):
        module._checked(good | change, {})


@pytest.mark.parametrize("answer", [b"[" * 100_000, b'{"files":' * 100_000, b"\xff", b""])
def test_a_malformed_answer_is_a_crash_of_the_step(tmp_path: Path, answer: bytes) -> None:
    (tmp_path / "result.json").write_bytes(answer)
    (tmp_path / "log").write_text("what the step printed")
    last = module._LastProgress(lambda *_words: None)
    with pytest.raises(StepCrashError, match="what the step printed"):
        module._result(0, 0, tmp_path, tmp_path / "log", last, False)

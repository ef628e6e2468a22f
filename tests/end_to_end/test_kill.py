"""Killed at any moment: nothing hangs, nothing is half there, nothing that was finished is done again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from small_project import Project

pytestmark = pytest.mark.slow

# Two chains side by side, so that `-n 2` has two steps at work.
SLOW = """\
targets:
  left1: {step: write_text, params: {text: l, lines: 10, seconds: 0.2}, resources: {memory_gib: 0.1}}
  left2: {step: change_text, inputs: {text: left1}, params: {upper: true, seconds: 0.1}}
  right1: {step: write_text, params: {text: r, lines: 10, seconds: 0.2}, resources: {memory_gib: 0.1}}
  right2: {step: change_text, inputs: {text: right1}, params: {upper: true, seconds: 0.1}}
layouts:
  flat: {step: change_text, inputs: {text: left2, more: right2}}
"""


def step_processes(project: Project) -> list[int]:
    """The processes of steps of this project that are there now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "artifacts.run.child" in words and any(word.startswith(str(project.root)) for word in words):
            found.append(int(path.parent.name))
    return found


def wait_for_steps(project: Project, count: int = 1) -> list[int]:
    """The processes of steps, once there are so many and each has begun to write."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = step_processes(project)
        begun = [path for path in project.cache.glob("staging/*/files/*") if path.stat().st_size]
        if len(found) >= count and len(begun) >= count:
            return found
        time.sleep(0.01)
    raise TimeoutError("no step began")


def assert_no_step_survives(project: Project) -> None:
    """The kernel needs a moment to end them."""
    end = time.monotonic() + 5
    while step_processes(project):
        assert time.monotonic() < end, "a step survived"
        time.sleep(0.01)


def assert_whole(project: Project) -> None:
    """Everything that can be taken for a result is one, by its bytes."""
    for record in (project.cache / "actions").glob("[0-9a-f]*.json"):
        content = json.loads(record.read_bytes())["action"]["content"]
        folder = project.cache / "artifacts" / content
        manifest = (folder / "manifest.json").read_bytes()
        assert hashlib.sha256(manifest).hexdigest() == content
        files = json.loads(manifest)["files"]
        assert {path.name for path in (folder / "files").iterdir()} == set(files)
        for name, file in files.items():
            assert hashlib.sha256((folder / "files" / name).read_bytes()).hexdigest() == file["sha256"]
    for link in project.cache.glob("small/[!.]*"):
        assert link.is_symlink()
        assert (link / "text.txt").is_file()
    published = project.root / "dist" / "small"
    if published.exists():
        for folder in published.glob("[!.]*"):
            assert [path.name for path in folder.iterdir()] == ["text.txt"]


def _spec_of(step: int) -> str:
    """What a step was told to do."""
    folder = Path(f"/proc/{step}/cmdline").read_bytes().decode().split("\0")[3]
    return (Path(folder) / "spec.json").read_text()


def records(project: Project) -> dict[str, int]:
    """The records of finished steps, each with its inode: a record that is written again has another."""
    return {path.name: path.stat().st_ino for path in (project.cache / "actions").glob("[0-9a-f]*.json")}


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["one by one", "side by side"])
def test_a_run_killed_at_any_moment_leaves_nothing_broken(project: Project, words: tuple[str, ...]) -> None:
    project.recipe(SLOW)
    moments = random.Random(len(words))
    for round_ in range(4):
        project.recipe(SLOW.replace("text: l,", f"text: l{round_},").replace("text: r,", f"text: r{round_},"))
        finished: dict[str, int] = {}
        for _ in range(2):
            process = project.start(*words)
            time.sleep(moments.uniform(0.2, 1.6))
            process.kill()
            process.communicate()
            assert_no_step_survives(project)
            assert_whole(project)
            assert finished.items() <= records(project).items()
            finished = records(project)
        ended = project.doit(*words)
        assert ended.code == 0, ended.err
        assert finished.items() <= records(project).items(), "what was finished was done again"
        assert_whole(project)
        assert project.text("flat") == f"L{round_}\n" * 10 + f"R{round_}\n" * 10
        assert (project.root / "dist/small/flat/text.txt").read_text() == project.text("flat")
    assert "all unchanged" in project.doit().out
    assert project.doit("gc").code == 0
    assert list((project.cache / "staging").iterdir()) == []
    assert list((project.root / "dist" / "small").iterdir()) == [project.root / "dist" / "small" / "flat"]


def test_a_killed_step_is_told_as_such_and_the_next_run_completes(project: Project) -> None:
    project.recipe(SLOW.replace("seconds: 0.2", "seconds: 20"))
    process = project.start("left1")
    [step] = wait_for_steps(project)
    time.sleep(0.2)
    os.kill(step, signal.SIGKILL)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert re.fullmatch(
        r"small:left1: killed \(SIGKILL\) at 0\.\d GiB while writing\n"
        r"  fix: raise resources.memory_gib or run fewer jobs at once \(-n 1\)\n",
        err,
    )
    assert "failed small:left1\n" in out
    assert list((project.cache / "staging").iterdir()) == []
    project.recipe(SLOW)
    assert project.doit("left1").code == 0


def test_a_killed_step_does_not_take_the_one_beside_it_along(project: Project) -> None:
    project.recipe(SLOW.replace("text: l, lines: 10, seconds: 0.2", "text: l, lines: 10, seconds: 20"))
    process = project.start("-n", "2", "--continue")
    [slow] = [step for step in wait_for_steps(project, 2) if '"seconds": 20.0' in _spec_of(step)]
    os.kill(slow, signal.SIGKILL)
    out, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert err.startswith("small:left1: killed (SIGKILL)")
    assert project.built() == ["right1", "right2"]
    rows = dict(re.findall(r"^ ?small:(\S+) +(not tried|\w+)", out, flags=re.MULTILINE))
    assert rows == {"left1": "failed", "left2": "not tried", "right1": "built", "right2": "built", "flat": "not tried"}


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["one by one", "side by side"])
def test_control_c_ends_it_promptly(project: Project, words: tuple[str, ...]) -> None:
    project.recipe(SLOW.replace("seconds: 0.2", "seconds: 20"))
    process = project.start(*words)
    wait_for_steps(project, 2 if words else 1)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - started < 3
    assert process.returncode == 130
    assert err == "interrupted; what was finished is kept\n"
    assert "Traceback" not in out
    assert re.search(r"small:left1 +interrupted", out)
    assert re.search(r"small:flat +not tried", out)
    assert_no_step_survives(project)
    assert_whole(project)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_run_that_is_told_to_end_ends_as_by_control_c(project: Project, number: signal.Signals, code: int) -> None:
    project.recipe(SLOW.replace("seconds: 0.2", "seconds: 20"))
    process = project.start("-n", "2")
    wait_for_steps(project, 2)
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - started < 5
    assert (process.returncode, err) == (code, "interrupted; what was finished is kept\n")
    assert re.search(r"small:left1 +interrupted", out)
    assert project.journal("interrupted") == ["left1", "right1"]
    assert_no_step_survives(project)
    assert_whole(project)


def test_a_run_that_is_told_to_end_after_its_last_target_still_prints_the_table(project: Project) -> None:
    project.recipe(SLOW.replace("seconds: 0.2", "seconds: 0"))
    process = project.start()
    assert process.stdout is not None
    lines = []
    while "built small:flat" not in (line := process.stdout.readline()):
        lines.append(line)
        assert line, "".join(lines)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert re.search(r"^ ?small:flat +built", out, re.MULTILINE), out + err
    assert process.returncode in (0, 143)


def test_a_run_under_nohup_survives_its_terminal(project: Project) -> None:
    project.recipe(SLOW)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = project.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for_steps(project)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, ""), out


def test_two_runs_at_once_build_each_target_once(project: Project) -> None:
    project.recipe(SLOW)
    both = [project.start(), project.start("-n", "2")]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert sorted(project.built()) == ["flat", "left1", "left2", "right1", "right2"]
    assert_whole(project)


def test_a_run_that_waits_for_another_says_so(project: Project) -> None:
    project.recipe("targets:\n  slow: {step: write_text, params: {lines: 10, seconds: 0.5}}\n")
    first = project.start()
    [step] = wait_for_steps(project)
    os.kill(step, signal.SIGSTOP)
    second = project.start()
    assert second.stdout is not None
    waiting = "        small:slow: waiting: another process builds the same artifact\n"
    assert second.stdout.readline() == waiting
    os.kill(step, signal.SIGCONT)
    out, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (0, "")
    assert waiting not in out
    out, err = second.communicate(timeout=60)
    assert (second.returncode, err) == (0, "")
    assert waiting not in out, "said twice"
    assert project.built() == ["slow"]


def test_two_runs_at_once_of_which_one_fails_both_end_well(project: Project) -> None:
    project.recipe(SLOW + "  bad: {step: misbehave, params: {how: refuse}}\n")
    both = [project.start("--continue", "flat", "bad"), project.start("flat")]
    ends = [(*process.communicate(timeout=60), process.returncode) for process in both]
    assert ends[0][2] != 0
    assert ends[0][1] == "small:bad: this input is not to my taste\n  fix: give me another\n"
    assert ends[1][1:] == ("", 0)
    assert sorted(project.built()) == ["flat", "left1", "left2", "right1", "right2"]


def test_what_a_step_leaves_running_is_ended_with_it(project: Project) -> None:
    project.recipe("targets:\n  bad: {step: misbehave, params: {how: leave a child}}\n")
    assert project.doit("bad").code == 0
    left = int((project.cache / "small" / "bad" / "pid.txt").read_text())
    state = Path(f"/proc/{left}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_gc_is_refused_while_a_build_is_at_work(project: Project) -> None:
    project.recipe(SLOW.replace("seconds: 0.2", "seconds: 20"))
    process = project.start("left1")
    wait_for_steps(project)
    refused = project.doit("gc")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert refused.code == 3
    assert "'cache' is in use by a build\n  fix: wait for its end, then run again\n" in refused.err

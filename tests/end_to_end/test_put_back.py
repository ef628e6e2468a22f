"""Sources, artifacts and code that change while a step reads them, and are as before when it ends."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from small_project import Project

pytestmark = pytest.mark.slow

SLOW = """\
sources:
  notes: {file: notes.txt}
  speech: {folder: speech}
targets:
  of_file: {step: take_text, inputs: {source: notes}, params: {seconds: 1.5}}
  of_folder: {step: take_text, inputs: {source: speech}, params: {seconds: 1.5}}
  first: {step: write_text}
  of_artifact: {step: take_text, inputs: {source: first}, params: {seconds: 1.5}}
"""


def replaced(path: Path) -> None:
    """Another file takes its place, and then the old one again."""
    aside = path.with_name("aside")
    path.rename(aside)
    path.write_text("other bytes\n")
    path.unlink()
    aside.rename(path)


def written_over(path: Path) -> None:
    """Its bytes change, and change back; its mtime is put back too."""
    before, data = path.stat(), path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data.swapcase())
    path.write_bytes(data)
    subprocess.run(["touch", "-d", f"@{before.st_mtime_ns / 1e9:.9f}", path], check=True)


def joined(path: Path) -> None:
    """Another file comes into its folder, and goes."""
    (path.parent / "another.txt").write_text("another\n")
    (path.parent / "another.txt").unlink()


def while_it_runs(project: Project, target: str, change: Callable[[], object]) -> tuple[int | None, str]:
    """Build a target whose step takes 1.5 s, and change something in the middle. Returns the exit code and stderr."""
    process = project.start(target)
    end = time.monotonic() + 30
    while not list(project.cache.glob("staging/*/work")):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.7)  # the step's process has begun
    change()
    _, err = process.communicate(timeout=30)
    return process.returncode, err


CHANGES = [
    ("of_file", "notes", "recipes/notes.txt", replaced),
    ("of_file", "notes", "recipes/notes.txt", written_over),
    ("of_folder", "speech", "recipes/speech/b.txt", replaced),
    ("of_folder", "speech", "recipes/speech/b.txt", written_over),
    ("of_folder", "speech", "recipes/speech/b.txt", joined),
    ("of_artifact", "first", "cache/small/first/text.txt", replaced),
    ("of_artifact", "first", "cache/small/first/text.txt", written_over),
]


@pytest.mark.parametrize(("target", "name", "path", "change"), CHANGES)
def test_an_input_that_changed_and_was_put_back_is_not_taken_for_what_the_step_read(
    project: Project, target: str, name: str, path: str, change: Callable[[Path], None]
) -> None:
    project.recipe(SLOW)
    (project.root / "recipes" / "speech").mkdir()
    for letter in "ab":
        (project.root / "recipes" / "speech" / f"{letter}.txt").write_text(f"{letter}\n")
    assert project.doit("first").code == 0
    code, err = while_it_runs(project, target, lambda: change(project.root / path))
    assert code == 1
    # On a slow machine, the step's process may have begun, and not have compared its inputs yet.
    late = f"input 'source' (small:{name}) changed while the step read it"
    assert err in [
        f"small:{target}: {said}\n  fix: run again\n"
        for said in (late, "input 'source' changed before the step read it")
    ]
    assert target not in project.built()
    assert list((project.cache / "staging").iterdir()) == []
    assert project.doit(target).code == 0, "the fix works"


def test_a_step_whose_code_is_another_when_it_starts_and_put_back_after_is_not_recorded(own_project: Project) -> None:
    own_project.recipe("targets: {first: {step: write_text, params: {text: one, seconds: 1.5}}}\n")
    step = own_project.package / "steps" / "write_text.py"
    good = step.read_text()
    assert own_project.doit("list").code == 0
    # The tools are looked at before the step's module is compiled: what is replaced then is what runs.
    process = own_project.start("first")
    end = time.monotonic() + 30
    while not list(own_project.cache.glob("staging/*/spec.json")):
        assert time.monotonic() < end
        time.sleep(0.001)
    step.write_text(good.replace("params.text +", "2 * params.text +"))
    while not list(own_project.cache.glob("staging/*/files/text.txt")):
        assert time.monotonic() < end
        time.sleep(0.001)
    step.write_text(good)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == "small:first: artifacts.steps.write_text changed while step 'write_text' ran\n  fix: run again\n"
    assert own_project.doit("first").code == 0
    assert own_project.text("first") == "one\n"


def test_a_comment_that_is_reworded_while_its_step_runs_costs_nothing(own_project: Project) -> None:
    own_project.recipe("targets: {first: {step: write_text, params: {seconds: 1.5}}}\n")
    step = own_project.package / "steps" / "write_text.py"
    code, err = while_it_runs(
        own_project, "first", lambda: step.write_text(step.read_text().replace("The smallest step", "A small step"))
    )
    assert (code, err) == (0, "")
    assert "1 target, unchanged" in own_project.doit().out


@pytest.mark.parametrize("kind", ["a folder that is renamed", "a link that leads elsewhere"])
def test_a_folder_above_a_source_that_is_another_when_the_step_starts_is_met(own_project: Project, kind: str) -> None:
    """It is swapped when the source was hashed, and put back while the step is at work on what it read."""
    step = (own_project.package / "steps" / "take_text.py").read_text().replace("    time.sleep(params.seconds)\n", "")
    (own_project.package / "steps" / "take_text.py").write_text(step + "    time.sleep(params.seconds)\n")
    own_project.recipe(SLOW.replace("file: notes.txt", "file: data/notes.txt"))
    recipes = own_project.root / "recipes"
    for name in ("good", "evil"):
        (recipes / name).mkdir()
        (recipes / name / "notes.txt").write_text(f"{name}\n")
    data = recipes / "data"

    def lead_to(name: str, other: str) -> None:
        if kind == "a link that leads elsewhere":
            data.unlink(missing_ok=True)
            data.symlink_to(name)
        else:
            if data.exists():
                data.rename(recipes / other)
            (recipes / name).rename(data)

    lead_to("good", "evil")
    process = own_project.start("of_file")
    end = time.monotonic() + 30
    while not list(own_project.cache.glob("staging/*/spec.json")):
        assert time.monotonic() < end
    lead_to("evil", "good")
    time.sleep(0.8)
    lead_to("good", "evil")
    _, err = process.communicate(timeout=30)
    # Where the swap comes too late, the step's process was confined to the right file.
    assert process.returncode == 1 or own_project.text("of_file") == "good\n"
    assert process.returncode == 0 or re.search(r"input '\w+'.* changed (before|while) the step read it\n", err), err

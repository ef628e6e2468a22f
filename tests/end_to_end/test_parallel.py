"""`-n N`: what does not need one another runs side by side, as far as the memory goes."""

from __future__ import annotations

import json

import pytest

from small_project import Project

pytestmark = pytest.mark.slow

TWO = """\
targets:
  one: {step: take_time, params: {name: one}}
  two: {step: take_time, params: {name: two}}
"""


def overlap(project: Project) -> bool:
    """Whether the two steps that ran last were at work at the same time."""
    times = []
    for path in sorted((project.cache / "actions").iterdir(), key=lambda path: path.stat().st_mtime)[-2:]:
        metrics = json.loads(path.read_bytes())["action"]["metrics"]
        times.append((metrics["began"], metrics["ended"]))
    return bool(max(began for began, _ in times) < min(ended for _, ended in times))


def test_targets_that_declare_their_memory_run_side_by_side(project: Project) -> None:
    project.recipe(TWO.replace("}}", "}, resources: {memory_gib: 0.1}}"))
    ended = project.doit("-n", "2")
    assert ended.code == 0, ended.err
    assert overlap(project)


def test_a_target_of_which_nothing_is_known_runs_alone(project: Project) -> None:
    project.recipe(TWO)
    assert project.doit("-n", "2").code == 0
    assert not overlap(project)


def test_what_a_target_took_before_is_what_it_is_expected_to_take(project: Project) -> None:
    project.recipe(TWO)
    project.doit()
    project.recipe(TWO.replace("name: ", "name: another "))
    assert project.doit("-n", "2").code == 0
    assert overlap(project)


def test_targets_that_do_not_fit_together_run_one_after_the_other(project: Project) -> None:
    project.recipe(TWO.replace("}}", "}, resources: {memory_gib: 100000}}"))
    assert project.doit("-n", "2").code == 0
    assert not overlap(project)


def test_without_n_they_run_one_after_the_other(project: Project) -> None:
    project.recipe(TWO.replace("}}", "}, resources: {memory_gib: 0.1}}"))
    assert project.doit().code == 0
    assert not overlap(project)


def test_many_threads_look_at_many_files_and_come_to_the_same(project: Project) -> None:
    names = [f"t{index}" for index in range(12)]
    step = "{{step: write_text, params: {{text: {0}}}, resources: {{memory_gib: 0.01}}}}"
    rest = "".join(
        f"  u{name}: {{step: change_text, inputs: {{text: {name}}}, resources: {{memory_gib: 0.01}}}}\n"
        for name in names
    )
    project.recipe("targets:\n" + "".join(f"  {name}: {step.format(name)}\n" for name in names) + rest)
    ended = project.doit("-n", "8")
    assert ended.code == 0, ended.err
    assert len(project.built()) == 24
    assert all(project.text(f"u{name}") == f"{name}\n" for name in names)
    assert "24 targets, all unchanged" in project.doit("-n", "8").out

"""`doit why` and `doit plan`: what would be built and for what reason, down to the line of the recipe."""

from __future__ import annotations

import json
import re

import pytest

from artifacts.digest import digest_json
from artifacts.runtime.processor import processor
from small_project import Project


def planned(project: Project, *words: str) -> dict[str, str]:
    """What `doit plan` says of each target."""
    ended = project.doit("plan", *words)
    assert ended.code == 0, ended.err
    rows = re.findall(r"^(\S+(?: tried)?) +small:(\S+)", ended.out, flags=re.MULTILINE)
    return {target: what for what, target in rows}


def test_why_names_the_line_and_key_of_the_recipe_with_old_and_new_value(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    ended = built_project.doit("why", "second")
    assert ended.code == 0
    assert ended.out == (
        "small:second will be built:\n"
        "  recipes/small.yaml:13:21: targets.second.params.upper: true -> false\n"
    )  # fmt: skip


def test_why_says_on_which_processor_a_target_was_made(built_project: Project) -> None:
    said = built_project.doit("why", "second").out.splitlines()
    assert re.fullmatch(rf"  last built \d{{4}}-\d\d-\d\d \d\d:\d\d, on {re.escape(processor())}:", said[1])
    assert said[2] == "  it had not been built before"


def test_a_run_prints_the_processor_of_built_and_of_restored_measurements(own_project: Project) -> None:
    step = own_project.package / "steps" / "change_text.py"
    step.write_text(step.read_text().replace("TOOLS = ", "DEPENDS_ON_PROCESSOR = True\n\nTOOLS = "))
    line = f"measured on: {processor()}\n"
    assert line in own_project.doit().out
    # Another machine's record: what it says stays with the artifact.
    for path in (own_project.cache / "actions").glob("*.json"):
        record = json.loads(path.read_text())
        record["action"]["processor"] = "Another (AVX2)"
        path.write_text(json.dumps({"action": record["action"], "sha256": digest_json(record["action"])}))
    own_project.replace("text: one", "text: two")
    elsewhere = own_project.doit("first")
    assert "measured on" not in elsewhere.out
    own_project.replace("text: two", "text: one")
    assert "measured on: Another (AVX2)\n" in own_project.doit().out


def test_why_says_so_when_a_param_falls_back_to_its_default(built_project: Project) -> None:
    built_project.replace("    params: {upper: true}\n", "")
    said = built_project.doit("why", "second").out
    assert "recipes/small.yaml:10:3: targets.second.params.upper: true -> false (the default)\n" in said


def test_why_names_the_function_of_the_step_that_changed(own_project: Project) -> None:
    own_project.doit()
    step = own_project.package / "steps" / "change_text.py"
    step.write_text(
        step.read_text().replace("folder /", "folder.absolute() /") + "\n\ndef _unused() -> None:\n    pass\n"
    )
    said = own_project.doit("why", "second").out
    assert "its step: artifacts/steps/change_text.py: _read changed, _unused is new\n" in said
    assert "its step: run " not in said


def test_why_names_the_module_behind_the_step_that_changed(own_project: Project) -> None:
    own_project.doit()
    params = own_project.package / "params.py"
    params.write_text(params.read_text().replace("frozen=True, ", "frozen=True, title='x', "))
    said = own_project.doit("why", "third").out
    assert "code its step uses: artifacts/params.py: StepParams changed\n" in said


def test_why_names_an_input_whose_content_changed(built_project: Project) -> None:
    built_project.replace("text: one", "text: two")
    built_project.doit("first")
    said = built_project.doit("why", "second").out
    assert re.search(r"input 'text': the content of small:first changed \(\w{12} -> \w{12}\)\n", said)


def test_why_names_an_input_that_was_added(built_project: Project) -> None:
    built_project.replace("inputs: {text: second}", "inputs: {text: second, more: first}")
    said = built_project.doit("why", "third").out
    assert said == "small:third will be built:\n  recipes/small.yaml:16:34: input 'more' is new: small:first\n"
    built_project.replace("{text: third, more: first}", "{text: third}")
    said = built_project.doit("why", "flat").out
    assert "recipes/small.yaml:21:13: input 'more' was removed\n" in said


def test_why_says_that_what_comes_after_may_stop(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    said = built_project.doit("why").out
    assert "small:third will be built, unless the bytes of its inputs come out as they were:\n" in said
    assert "small:second is built first; unchanged if those bytes stay the same\n" in said
    assert "small:third may be built first; unchanged if those bytes stay the same\n" in said


def test_why_explains_the_last_build_of_what_is_up_to_date(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    built_project.doit()
    said = built_project.doit("why", "second").out
    assert said.startswith("small:second is up to date\n  last built 20")
    assert said.endswith("  recipes/small.yaml:13:21: targets.second.params.upper: true -> false\n")
    built_project.replace("upper: false", "upper: true")
    built_project.doit()
    said = built_project.doit("why", "second").out
    assert "  last restored 20" in said
    assert said.endswith("targets.second.params.upper: false -> true\n")
    assert built_project.doit("why").out == "5 targets, all up to date\n"


def test_why_ends_with_the_last_try_if_that_failed(project: Project) -> None:
    project.recipe("targets:\n  bad: {step: misbehave, params: {how: refuse}}\n")
    project.doit()
    tried = r"  last try 20\d\d-\d\d-\d\d \d\d:\d\d failed: "
    never = "small:bad will be built:\n  it was never built\n"
    assert re.fullmatch(f"{never}{tried}this input is not to my taste\n", project.doit("why", "bad").out)
    project.replace("refuse", "raise")
    crashed = project.doit()
    assert crashed.err.endswith("ValueError: a bug in a step\n  log: cache/logs/small/bad.log\n")
    last = r"a bug: ValueError: a bug in a step; log: cache/logs/small/bad\.log\n"
    assert re.fullmatch(never + tried + last, project.doit("why", "bad").out)
    project.replace("misbehave, params: {how: raise}", "write_text")
    assert project.doit().code == 0
    assert "last try" not in project.doit("why", "bad").out


def test_the_run_itself_says_why_it_builds(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    said = built_project.doit().out
    assert "building small:second: recipes/small.yaml:13:21: targets.second.params.upper: true -> false\n" in said


def test_plan_changes_nothing(project: Project) -> None:
    before = project.files()
    assert project.doit("plan").code == 0
    assert project.doit("why").code == 0
    assert project.files() == before


def test_plan_changes_nothing_in_a_project_that_is_half_built(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    before = built_project.files()
    assert built_project.doit("plan").code == 0
    assert built_project.doit("plan", "third").code == 0
    assert built_project.files() == before


def test_plan_walks_through_the_whole_graph(project: Project) -> None:
    assert planned(project) == {
        "notes": "find", "first": "build", "second": "build", "third": "build", "flat": "build",
    }  # fmt: skip
    project.doit("second")
    assert planned(project) == {
        "notes": "find", "first": "leave", "second": "leave", "third": "build", "flat": "build",
    }  # fmt: skip
    assert planned(project, "second") == {"first": "leave", "second": "leave"}


def test_plan_tells_what_is_built_for_certain_from_what_may_be_left(built_project: Project) -> None:
    built_project.replace("text: one", "text: two")
    built_project.replace("suffix: .", "suffix: '!'")
    assert planned(built_project) == {
        "notes": "leave", "first": "build", "second": "build?", "third": "build", "flat": "build?",
    }  # fmt: skip
    said = built_project.doit("why", "third").out
    assert '.suffix: "." -> "!"\n  small:second may be built first\n' in said


def test_plan_knows_what_would_be_restored(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    built_project.doit()
    built_project.replace("upper: false", "upper: true")
    assert planned(built_project) == {
        "notes": "leave", "first": "leave", "second": "restore", "third": "restore", "flat": "restore",
    }  # fmt: skip


def test_plan_knows_seconds_and_memory_from_earlier_runs(project: Project) -> None:
    project.replace("lines: 3", "lines: 3\n      seconds: 0.3")
    project.doit()
    project.replace("lines: 3", "lines: 4")
    said = project.doit("plan").out
    row = re.search(r"^build +small:first +([\d.]+) s +([\d.]+) MB", said, flags=re.MULTILINE)
    assert row is not None
    assert 0.3 <= float(row[1]) < 5
    assert 10 < float(row[2]) < 200
    assert re.search(r"^by earlier runs at most \d+ s one by one, peak [\d.]+ MB$", said, flags=re.MULTILINE)


def test_plan_says_what_cannot_be_tried_for_want_of_a_source(built_project: Project) -> None:
    built_project.replace("step: write_text\n    params:\n      text: one\n      lines: 3",
                          "step: change_text\n    inputs: {text: notes}")  # fmt: skip
    built_project.replace("file: notes.txt", "file: elsewhere.txt")
    rows = planned(built_project)
    assert rows["notes"] == "missing"
    assert rows["first"] == rows["second"] == "not tried"
    table = built_project.doit("plan").out
    assert re.search(r"^missing +small:notes +small:notes is missing$", table, flags=re.MULTILINE)
    assert re.search(r"^not tried small:first +needs small:notes$", table, flags=re.MULTILINE)
    assert re.search(r"^not tried small:flat +needs small:notes$", table, flags=re.MULTILINE)
    assert table.count("no file at") == 1
    said = built_project.doit("why", "notes", "first").out
    assert (
        "small:notes is missing:\n  recipes/small.yaml:2:3: sources.notes: no file at 'recipes/elsewhere.txt'" in said
    )
    assert "small:first will not be tried:\n  recipes/small.yaml:2:3: sources.notes: no file at" in said


@pytest.mark.parametrize("change", ["other bytes", "no file"])
def test_plan_and_why_give_the_fix_that_a_run_gives_for_a_source(built_project: Project, change: str) -> None:
    notes = built_project.root / "recipes" / "notes.txt"
    built_project.replace("file: notes.txt", "file: notes.txt\n    hint: ask for the notes")
    if change == "other bytes":
        notes.write_text("other notes\n")
    else:
        notes.unlink()
    error = built_project.doit().err
    assert error.count("\n") == 2
    fact, fix = error.splitlines()
    planned = built_project.doit("plan").out.splitlines()
    row = next(index for index, line in enumerate(planned) if "small:notes" in line)
    assert planned[row].split()[0] == ("changed" if change == "other bytes" else "missing")
    reason = "has other bytes than its pin" if change == "other bytes" else "is missing"
    assert planned[row].endswith(f" small:notes {reason}")
    assert planned[-2:] == [fact, fix]
    assert f":\n  {fact}\n{fix}\n" in built_project.doit("why", "notes").out

"""Steps that fail, each in its way: what is said, what is left, and what goes on beside them."""

from __future__ import annotations

import re
import shutil

import pytest

from small_project import Project

pytestmark = pytest.mark.slow

# How a step misbehaves, and what is said of it.
MISBEHAVIOUR = {
    "raise": r"small:bad: its step crashed, which is a bug\n.*ValueError: a bug in a step",
    "exit": r"small:bad: its step crashed, which is a bug\n",
    "nothing": r"small:bad: its step crashed, which is a bug\n.*the step wrote no file",
    "link": r"small:bad: its step crashed, which is a bug\n.*the step left 'link', which is not a regular file, ",
    "not a number": r"small:bad: its step crashed, which is a bug\n.*metric 'metric': must be a finite number",
    "segfault": r"small:bad: ended by SIGSEGV at 0.\d GiB while misbehaving\n  fix: read 'cache/logs/small/bad.log', ",
    "eat memory": r"small:bad: memory ran out\n  fix: run fewer jobs at once ",
}


@pytest.mark.parametrize("how", MISBEHAVIOUR)
def test_a_step_that_misbehaves_fails_and_leaves_nothing(project: Project, how: str) -> None:
    project.recipe(f"targets:\n  bad: {{step: misbehave, params: {{how: {how}}}}}\n")
    ended = project.doit("bad")
    assert ended.code == 1
    assert re.match(MISBEHAVIOUR[how], ended.err, flags=re.DOTALL), ended.err
    assert list((project.cache / "staging").iterdir()) == []
    assert not (project.cache / "artifacts").exists()
    assert not (project.cache / "small").exists()


def test_a_step_may_talk_as_much_as_it_likes(project: Project) -> None:
    project.recipe("targets:\n  loud: {step: misbehave, params: {how: talk much}}\n")
    assert project.doit("loud").code == 0


@pytest.mark.parametrize("how", ["in place", "by a rename"])
def test_a_source_that_is_edited_while_a_step_reads_it_is_not_taken_for_what_it_read(
    project: Project, how: str
) -> None:
    project.replace(
        "targets:", "targets:\n  bad: {step: misbehave, inputs: {source: notes}, params: {how: wait for the source}}"
    )
    process = project.start("bad")
    while not list(project.cache.glob("staging/*/files/waiting")):
        assert process.poll() is None
    edited = project.root / "recipes" / ("notes.txt" if how == "in place" else "notes.new")
    edited.write_text("edited while it was read\n")
    edited.replace(project.root / "recipes" / "notes.txt")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1, out
    assert err == "small:bad: input 'source' (small:notes) changed while the step read it\n  fix: run again\n"
    assert project.built() == []


def test_a_step_cannot_edit_its_input(project: Project) -> None:
    project.replace(
        "targets:", "targets:\n  bad: {step: misbehave, inputs: {source: notes}, params: {how: edit the source}}"
    )
    ended = project.doit("bad")
    assert ended.code == 1
    assert re.match(r"small:bad: its step crashed, which is a bug\n.*Error: .*notes\.txt'\n", ended.err, re.DOTALL)
    assert ended.err.endswith("\n  log: cache/logs/small/bad.log\n")
    assert (project.root / "recipes" / "notes.txt").read_text() == "some notes\n"


def test_a_file_beside_the_input_that_a_step_needs_is_asked_for(project: Project) -> None:
    (project.root / "recipes" / "text.txt").write_text("beside")
    project.replace(
        "targets:", "targets:\n  bad: {step: misbehave, inputs: {source: notes}, params: {how: read beside}}"
    )
    ended = project.doit("bad")
    assert ended.code == 1
    assert ended.err == (
        "small:bad: input 'source' needs 'text.txt' beside it, which is not an input\n"
        "  fix: declare the source as a 'folder' that contains both files; "
        "the step's output is in 'cache/logs/small/bad.log'\n"
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{step: change_text, inputs: {text: notes}}", "input 'text' contains no file 'text.txt'"),
        ("{step: change_text, inputs: {text: first, more: folder}}", "input 'more' contains no file 'text.txt'"),
        ("{step: misbehave, inputs: {source: folder}, params: {how: edit the source}}",
         "input 'source' is a folder, and a file is expected"),
    ],
)  # fmt: skip
def test_an_input_that_is_not_what_its_step_reads_is_told_from_a_bug(project: Project, entry: str, said: str) -> None:
    project.replace("sources:", "sources:\n  folder: {folder: some}")
    project.replace("targets:", f"targets:\n  bad: {entry}")
    (project.root / "recipes" / "some").mkdir()
    (project.root / "recipes" / "some" / "other.txt").write_text("other")
    ended = project.doit("bad")
    assert ended.code == 1
    name = said.split("'")[1]
    fix = f"check the input '{name}' of this target in the recipe; the step's output is in 'cache/logs/small/bad.log'"
    assert ended.err == f"small:bad: {said}\n  fix: {fix}\n"


def test_code_that_is_edited_while_its_step_runs_is_not_taken_for_what_ran(own_project: Project) -> None:
    own_project.replace("lines: 3", "lines: 3\n      seconds: 1.5")
    process = own_project.start("first")
    step = own_project.package / "steps" / "write_text.py"
    while not list(own_project.cache.glob("staging/*/files/*")):
        pass
    step.write_text(step.read_text().replace("params.text +", "2 * params.text +"))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1, out
    assert err == "small:first: the code of step 'write_text' changed while it ran\n  fix: run again\n"
    own_project.replace("seconds: 1.5", "seconds: 0.0")
    assert own_project.doit("first").code == 0
    assert own_project.text("first") == "oneone\n" * 3


def test_one_failing_target_does_not_stop_those_that_do_not_need_it(project: Project) -> None:
    project.replace(
        "layouts:",
        "  bad: {step: misbehave, params: {how: refuse}}\n  worse: {step: change_text, inputs: {text: bad}}\nlayouts:",
    )
    ended = project.doit("--continue")
    assert ended.code == 1
    assert ended.err == "small:bad: this input is not to my taste\n  fix: give me another\n"
    assert project.built() == ["first", "second", "third", "flat"]
    assert re.search(r"small:worse +not tried", ended.out)
    assert re.search(r"^1 found, 4 built, 1 failed, 1 not tried", ended.out, flags=re.MULTILINE)
    again = project.doit("--continue", "-n", "2")
    assert (again.code, again.err) == (1, ended.err)


STOPPED = """\
resources: {memory_gib: 0.1}  # of unknown need, the two would run in any order
targets:
  bad: {step: misbehave, params: {how: refuse}}
  late: {step: write_text, params: {seconds: 3}}
  later: {step: change_text, inputs: {text: late}}
"""


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_without_continue_a_failure_ends_the_run(project: Project, words: tuple[str, ...]) -> None:
    project.recipe(STOPPED)
    ended = project.doit(*words, "bad", "later")
    assert ended.code == 1
    assert "later" not in project.built()
    assert re.search(r"small:later +not tried", ended.out)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("class Params(StepParams)", "class Others(StepParams)", "it has no class Params"),
        ("class Params(StepParams)", "class Params", "it has no class Params"),
        ("TOOLS = ()", "", "it has no tuple TOOLS"),
        ("TOOLS = ()", "TOOLS = None", "it has no tuple TOOLS"),
        ("def run(", "def runs(", "it has no function run"),
        ("TOOLS = ()", "TOOLS = ()\nraise SystemExit(3)", "SystemExit: 3"),
        ("    time.sleep(", "    from artifacts.steps import _broken\n    time.sleep(", "_broken.py: cannot be read"),
    ],
)
def test_a_module_that_is_no_step_is_told(own_project: Project, old: str, new: str, said: str) -> None:
    (own_project.package / "steps" / "_broken.py").write_text("def (:\n")
    own_project.replace(old, new, path=own_project.package / "steps" / "take_time.py")
    own_project.recipe("targets:\n  bad: {step: take_time}\n")
    ended = own_project.doit("bad")
    assert ended.code != 0
    assert said in ended.err
    assert len(ended.err.splitlines()) == 2, ended.err


def test_a_step_needs_no_docstring(own_project: Project) -> None:
    own_project.recipe("targets:\n  plain: {step: take_time}\n")
    ended = own_project.doit("list", environment={"PYTHONOPTIMIZE": "2"})
    assert ended.code == 0, ended.err
    assert re.search(r"plain +take_time", ended.out)


def test_a_source_that_is_gone_when_a_later_step_needs_it_is_told(project: Project) -> None:
    project.recipe("""\
sources:
  notes: {folder: notes}
targets:
  early: {step: take_text, inputs: {source: notes}}
  slow: {step: change_text, inputs: {text: early}, params: {seconds: 1}}
  late: {step: change_text, inputs: {text: slow, more: notes}}
""")
    notes = project.root / "recipes" / "notes"
    notes.mkdir()
    (notes / "text.txt").write_text("some\n")
    process = project.start("late")
    while not (project.cache / "logs" / "small" / "slow.log").exists():
        assert process.poll() is None
    shutil.rmtree(notes)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.fullmatch(r".*sources\.notes: no folder at 'recipes/notes'\n  fix: put the folder there\n", err), err


def test_a_cache_that_is_removed_while_a_step_runs_is_told(project: Project) -> None:
    project.recipe("targets:\n  slow: {step: write_text, params: {seconds: 1}}\n")
    process = project.start("slow")
    while not list(project.cache.glob("staging/*/files/*")):
        assert process.poll() is None
    shutil.rmtree(project.cache)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.fullmatch(r"small:slow: '.*': No such file or directory\n  fix: do not move files .*\n", err), err
    assert project.doit().code == 0

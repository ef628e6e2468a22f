"""Mistakes of a recipe's author, and sources that are not in order: two lines, an exit code, and nothing changed."""

from __future__ import annotations

import hashlib
import re

import pytest

from small_project import Project

pytestmark = pytest.mark.slow

HEAD = "targets:\n  one: {step: write_text}\n"

# What the recipe says; the fact and the fix that `doit` answers with.
RECIPES: dict[str, tuple[str, str, str]] = {
    "syntax": (
        "targets:\n  one: {step: write_text\n",
        "recipes/small.yaml:3:1: not YAML: did not find expected ',' or '}'",
        "correct the syntax there",
    ),
    "a tab": (
        "targets:\n\tone: {}\n",
        "recipes/small.yaml:2:1: not YAML: found character that cannot start any token",
        "correct the syntax there",
    ),
    "a duplicate key": (
        HEAD + "  one: {step: change_text}\n",
        "recipes/small.yaml:3:3: the key 'one' is repeated",
        "keep one of the two",
    ),
    "an unknown section": (
        HEAD + "layout: {}\n",
        "recipes/small.yaml:3:1: layout: unknown key 'layout'",
        "did you mean 'layouts'?",
    ),
    "an unknown key": (
        "targets:\n  one: {step: write_text, parms: {}}\n",
        "recipes/small.yaml:2:27: targets.one.parms: unknown key 'parms'",
        "did you mean 'params'?",
    ),
    "an unknown param": (
        "targets:\n  one: {step: write_text, params: {txet: a}}\n",
        "recipes/small.yaml:2:36: targets.one.params.txet: unknown key 'txet'",
        "did you mean 'text'?",
    ),
    "an unknown step": (
        "targets:\n  one: {step: write_txt}\n",
        "recipes/small.yaml:2:15: targets.one.step: no step is called 'write_txt'",
        "did you mean 'write_text'?",
    ),
    "a missing step": (
        "targets:\n  one: {params: {}}\n",
        "recipes/small.yaml:2:8: targets.one.step: this key is missing",
        "add it",
    ),
    "a wrong type": (
        "targets:\n  one: {step: write_text, params: {lines: many}}\n",
        'recipes/small.yaml:2:43: targets.one.params.lines: must be a whole number, got "many"',
        "correct 'lines'",
    ),
    "a number for a text": (
        "targets:\n  one: {step: write_text, params: {text: 12}}\n",
        "recipes/small.yaml:2:42: targets.one.params.text: must be a text, got 12",
        "put the value in quotes",
    ),
    "too large": (
        "targets:\n  one: {step: write_text, params: {lines: 3000}}\n",
        "recipes/small.yaml:2:43: targets.one.params.lines: must be less than 1000, got 3000",
        "use 999 or less",
    ),
    "too small": (
        "targets:\n  one: {step: write_text, params: {lines: 0}}\n",
        "recipes/small.yaml:2:43: targets.one.params.lines: must be at least 1, got 0",
        "use 1 or more",
    ),
    "none of the choices": (
        "targets:\n  one: {step: misbehave, params: {how: well}}\n",
        "recipes/small.yaml:2:40: targets.one.params.how: must be 'raise', 'refuse', ",
        "correct 'how'",
    ),
    "an empty value": (
        "targets:\n  one: {step: write_text}\n  two:\n",
        "recipes/small.yaml:3:3: targets.two: has no keys, and no base has a target of this name",
        "write its keys, or delete it",
    ),
    "a bad name": (
        "targets:\n  'one two': {step: write_text}\n",
        'recipes/small.yaml:2:3: targets.one two: this name is not valid, got "one two"',
        "use letters, digits, '_', '.' and '-', and begin with a letter or digit",
    ),
    "a name used twice": (
        "sources:\n  one: {file: notes.txt}\n" + HEAD,
        "recipes/small.yaml:4:3: targets: 'one' is in sources too",
        "rename one of the two: sources, targets and layouts share their names",
    ),
    "a cycle": (
        "targets:\n  one: {step: change_text, inputs: {text: two}}\n  two: {step: change_text, inputs: {text: one}}\n",
        "recipes/small.yaml:2:36: targets.one.inputs: dependency cycle: one -> two -> one",
        "remove one of these inputs",
    ),
    "a cycle of layouts": (
        "layouts:\n  one: {step: change_text, inputs: {text: one}}\n",
        "recipes/small.yaml:2:36: layouts.one.inputs: dependency cycle: one -> one",
        "remove one of these inputs",
    ),
    "an unknown input": (
        HEAD + "  two: {step: change_text, inputs: {txt: one}}\n",
        "recipes/small.yaml:3:37: targets.two.inputs: step 'change_text' takes no input 'txt'",
        "did you mean 'text'?",
    ),
    "a missing input": (
        HEAD + "  two: {step: change_text}\n",
        "recipes/small.yaml:3:8: targets.two.inputs: step 'change_text' needs the input 'text'",
        "add it: 'text: <source or target>'",
    ),
    "an input that is nothing": (
        HEAD + "  two: {step: change_text, inputs: {text: onne}}\n",
        "recipes/small.yaml:3:43: targets.two.inputs.text: no source or target is called 'onne'",
        "did you mean 'one'?",
    ),
    "no kind of source": (
        "sources:\n  s: {sha256: '" + "0" * 64 + "'}\n" + HEAD,
        "recipes/small.yaml:2:6: sources.s: needs one of 'file', 'folder', 'url', or 'hf' with 'file'",
        "add one, for example 'file: model.nemo'",
    ),
    "two kinds of source": (
        "sources:\n  s: {file: notes.txt, folder: notes}\n" + HEAD,
        "recipes/small.yaml:2:6: sources.s: has both 'file' and 'folder'",
        "keep one",
    ),
    "a bad sha256": (
        "sources:\n  s: {file: notes.txt, sha256: 'abc'}\n" + HEAD,
        'recipes/small.yaml:2:32: sources.s.sha256: must be 64 hexadecimal digits, 0-9 and a-f, got "abc"',
        "write what sha256sum prints, or leave it out",
    ),
    "a bad revision": (
        "sources:\n  s: {hf: owner/name, file: a.bin}\n" + HEAD,
        "recipes/small.yaml:2:6: sources.s: 'hf' must read 'owner/name@revision'",
        "write for example 'hf: nvidia/parakeet-tdt-0.6b-v3@main'",
    ),
    "extends nothing": (
        "extends: nowhere.yaml\n",
        "recipes/small.yaml:1:10: extends: no such file: 'nowhere.yaml'",
        "name one YAML file, relative to this one, or a family: artifacts/parakeet-tdt",
    ),
    "extends itself": (
        "extends: ../recipes/small.yaml\n" + HEAD,
        "recipes/small.yaml:1:10: extends: '../recipes/small.yaml' leads back to itself",
        "break the cycle",
    ),
    "not a mapping": (
        "- one\n",
        "recipes/small.yaml:1:1: a recipe is a mapping of keys",
        "begin with 'sources:', 'targets:' or 'extends:'",
    ),
}


@pytest.mark.parametrize("mistake", RECIPES)
def test_a_mistake_in_a_recipe_is_told_in_two_lines_and_changes_nothing(built_once: Project, mistake: str) -> None:
    recipe, fact, fix = RECIPES[mistake]
    right = built_once.recipe_file.read_text()
    before = built_once.files()
    try:
        built_once.recipe(recipe)
        ended = built_once.doit()
    finally:
        built_once.recipe(right)
    lines = ended.err.splitlines()
    assert len(lines) == 2, ended.err
    assert lines[0].startswith(f"ERROR: {fact}")
    assert lines[1] == f"  fix: {fix}"
    assert (ended.code, ended.out) == (3, "")
    assert built_once.files() == before


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        (
            "default: small",
            "default: smal",
            "pipeline.yaml:1:10: default: no recipe is called 'smal'\n  fix: did you mean",
        ),
        (
            "default: small\n",
            "default: small\nrecipes: [none/*.yaml]\n",
            "pipeline.yaml:2:10: recipes: no recipe matches none/*.yaml\n  fix: write a recipe there",
        ),
        (
            "default: small\n",
            "default: small\nrecipe: [a]\n",
            "pipeline.yaml:2:1: recipe: unknown key 'recipe'\n  fix: did you mean 'recipes'?",
        ),
        (
            "default: small\n",
            "default: small\ndist: cache\n",
            "pipeline.yaml:1:1: 'cache' and 'dist' must not be inside one another",
        ),
    ],
)
def test_a_mistake_in_the_pipeline_is_told_too(built_project: Project, old: str, new: str, fact: str) -> None:
    built_project.replace(old, new, path=built_project.root / "pipeline.yaml")
    before = built_project.files()
    for words in ((), ("why", "first")):
        ended = built_project.doit(*words)
        assert ended.code == 3
        assert fact in ended.err
        assert "Traceback" not in ended.err
    assert built_project.files() == before


def test_an_unknown_target_is_answered_with_the_nearest(built_project: Project) -> None:
    for words in (("secnd",), ("list", "secnd"), ("why", "secnd"), ("plan", "secnd"), ("verify", "small:secnd")):
        ended = built_project.doit(*words)
        assert ended.code == 3
        assert re.search(
            r"ERROR: no target is called '((small:)?)secnd'\n  fix: did you mean '\1second'\?\n", ended.err
        )


def test_a_missing_source_says_where_it_is_expected_and_how_to_get_it(project: Project) -> None:
    project.replace("file: notes.txt", "file: model.nemo\n    hint: fetch it from example.org/models")
    project.replace(
        "step: write_text\n    params:\n      text: one\n      lines: 3", "step: change_text\n    inputs: {text: notes}"
    )
    ended = project.doit()
    assert ended.code == 1
    assert ended.err == (
        "recipes/small.yaml:2:3: sources.notes: no file at 'recipes/model.nemo'\n"
        "  fix: fetch it from example.org/models\n"
    )
    assert re.search(r"small:notes +failed", ended.out)
    assert re.search(r"small:flat +not tried", ended.out)


def test_a_source_with_another_sha256_is_refused(project: Project) -> None:
    project.replace("file: notes.txt", f"file: notes.txt\n    sha256: '{'0' * 64}'")
    ended = project.doit()
    assert ended.code == 1
    assert re.fullmatch(
        r"recipes/small.yaml:2:3: sources.notes: 'recipes/notes.txt' has sha256 \w{64}, recipes/small.yaml pins 0{64}\n"
        r"  fix: put the pinned bytes back, or write the new sha256 at recipes/small.yaml:4:13 if the new ones are "
        r"right\n",
        ended.err,
    )
    assert not (project.root / "pipeline.lock.yaml").exists()


def test_a_source_that_every_step_refuses_is_not_locked(project: Project) -> None:
    """Else a damaged checkpoint would be what the right one is held to."""
    lock = project.root / "pipeline.lock.yaml"
    notes = project.root / "recipes" / "notes.txt"
    recipe = (
        "sources: {notes: {file: notes.txt}}\n"
        "targets: {t: {step: misbehave, inputs: {source: notes}, params: {how: HOW}}}\n"
    )
    project.recipe(recipe.replace("HOW", "refuse"))
    notes.write_text("damaged\n")
    assert project.doit().code == 1
    assert not lock.exists()
    notes.write_text("the right notes\n")
    project.recipe(recipe.replace("HOW", "talk much"))
    ended = project.doit()
    assert ended.code == 0, ended.err
    assert hashlib.sha256(b"the right notes\n").hexdigest() in lock.read_text()
    assert "unchanged" in project.doit().out
    assert project.built() == ["t"]


def test_a_target_that_is_there_already_locks_what_it_was_made_from(project: Project) -> None:
    lock = project.root / "pipeline.lock.yaml"
    project.recipe(
        "sources: {notes: {file: notes.txt}}\n"
        "targets: {t: {step: misbehave, inputs: {source: notes}, params: {how: talk much}}}\n"
    )
    assert project.doit().code == 0
    locked = lock.read_text()
    lock.unlink()
    assert project.doit().code == 0
    assert lock.read_text() == locked
    assert project.built() == ["t"]


def test_a_source_is_held_to_the_lock_file_once_it_was_used(built_project: Project) -> None:
    lock = built_project.root / "pipeline.lock.yaml"
    locked = lock.read_text()
    (built_project.root / "recipes" / "notes.txt").write_text("other notes\n")
    ended = built_project.doit()
    assert ended.code == 1
    assert "pipeline.lock.yaml pins " in ended.err
    assert lock.read_text() == locked
    lock.write_text("sources: {notes: abc}\n")
    ended = built_project.doit()
    assert ended.code == 1
    assert ended.err.startswith('pipeline.lock.yaml:1:18: sources.notes: must be a mapping of keys, got "abc"\n  fix: ')

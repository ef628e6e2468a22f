"""Speech that a user does not have stops nothing but what needs it."""

from __future__ import annotations

import re

from small_project import RECIPE, Project

OPTIONAL = RECIPE.replace(
    "    file: notes.txt\n", "    file: notes.txt\n  extra: {folder: extra, optional: true, hint: write texts there}\n"
).replace("layouts:\n", "  fourth: {step: change_text, inputs: {text: extra}}\nlayouts:\n")


def test_without_an_optional_source_the_rest_is_built_and_the_run_is_green(project: Project) -> None:
    project.recipe(OPTIONAL)
    ended = project.doit()
    assert (ended.code, ended.err) == (0, "")
    assert "skipped 1 target without small:extra: no folder at 'recipes/extra'; write texts there\n" in ended.out
    assert re.search(r"^ ?small:fourth +skipped", ended.out, re.MULTILINE)
    assert re.search(r"^ ?small:flat +built", ended.out, re.MULTILINE)
    assert not (project.cache / "small" / "fourth").exists()
    assert project.doit("plan").out.count("\nskip ") == 2
    assert project.doit("verify").code == 0
    again = project.doit()
    assert (again.code, again.err) == (0, "")
    assert "2 skipped" in again.out
    (project.root / "recipes" / "extra").mkdir()
    (project.root / "recipes" / "extra" / "text.txt").write_text("more\n")
    ended = project.doit()
    assert re.search(r"^ ?small:fourth +built", ended.out, re.MULTILINE), ended.out + ended.err
    assert "skipped" not in ended.out


def test_only_a_local_source_is_optional(project: Project) -> None:
    project.recipe(OPTIONAL.replace("folder: extra", "url: 'https://example.org/extra'"))
    ended = project.doit()
    assert ended.code == 3
    assert "sources.extra: 'optional' is for a file or folder of this machine" in ended.err

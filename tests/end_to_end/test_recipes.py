"""Several recipes: a command reads those that its words speak of, and what concerns all reads all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from small_project import RECIPE, Project, make_project

OTHER = RECIPE.replace("text: one", "text: another")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Project:
    """A project with `small` and `other`, all of both built, and `broken`, which is no YAML. Not to be changed."""
    project = make_project(tmp_path_factory.mktemp("two") / "project", package)
    (project.recipe_file.parent / "other.yaml").write_text(OTHER)
    ended = project.doit("small", "other")
    assert ended.code == 0, ended.err
    (project.recipe_file.parent / "broken.yaml").write_text("targets: [\n")
    return project


@pytest.mark.parametrize(
    "words", [(), ("other",), ("other:flat", "second"), ("list",), ("why",), ("plan", "other"), ("verify", "small")]
)
def test_a_mistake_in_one_recipe_stops_nobody_who_works_on_another(two: Project, words: tuple[str, ...]) -> None:
    ended = two.doit(*words)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(
    "words", [("broken",), ("other", "broken:first"), ("oth*",), ("list", "--all"), ("verify",), ("gc",)]
)
def test_who_means_it_or_all_of_them_is_told(two: Project, words: tuple[str, ...]) -> None:
    before = two.files()
    ended = two.doit(*words)
    assert ended.code != 0
    assert "recipes/broken.yaml:" in ended.err
    assert two.files() == before


def test_a_mistyped_target_is_not_answered_with_another_recipes_mistake(two: Project) -> None:
    ended = two.doit("frist")
    assert ended.code != 0
    assert "no target is called 'frist'\n  fix: did you mean 'first'?" in ended.err


def test_gc_keeps_what_any_recipe_needs(two: Project, tmp_path: Path) -> None:
    shutil.copytree(two.root, tmp_path / "project", symlinks=True)
    copy = Project(tmp_path / "project", two.package.parent)
    (copy.recipe_file.parent / "broken.yaml").unlink()
    assert copy.doit("gc").out.startswith("removed 0 artifacts and downloads, 0 records")
    assert "all unchanged" in copy.doit("other").out


def test_the_list_names_every_recipe_and_the_targets_of_the_default_one(two: Project) -> None:
    names = {line.split()[0] for line in two.doit("list").out.splitlines()}
    assert names == {"broken", "other", "small", "first", "second", "third", "flat"}

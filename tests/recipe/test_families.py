"""Families of models come with the package, under names that no file of a project has."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.recipe.families import FOLDER, families, family_file
from artifacts.recipe.recipe import load_recipe


@pytest.mark.parametrize("name", ["artifacts/parakeet-tdt", "artifacts/parakeet-tdt-ncnn"])
def test_a_family_is_a_recipe_whose_targets_need_only_its_sources(name: str, tmp_path: Path) -> None:
    assert name in families()
    sources = "{checkpoint: {file: a.nemo}, evaluation: {folder: a}, calibration: {folder: b}}"
    (tmp_path / "x.yaml").write_text(f"extends: {name}\nsources: {sources}\n")
    recipe = load_recipe("x", tmp_path / "x.yaml").recipe
    known = {*recipe.sources, *recipe.targets, *recipe.layouts}
    assert {value for target in recipe.targets.values() for value in target.inputs.values()} <= known


@pytest.mark.parametrize(
    "name", ["parakeet-tdt", "artifacts", "artifacts/", "artifacts/../x", "artifacts/a/b", "../artifacts/a"]
)
def test_any_other_name_is_no_family(name: str) -> None:
    assert family_file(name) is None


def test_its_path_is_short_inside_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(FOLDER.parent)
    assert family_file("artifacts/parakeet-tdt") == Path("families/parakeet-tdt.yaml")
    monkeypatch.chdir(tmp_path)
    assert family_file("artifacts/parakeet-tdt") == FOLDER / "parakeet-tdt.yaml"

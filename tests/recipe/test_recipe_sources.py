from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.recipe.recipe import LoadedRecipe, NamedSource, load_recipe

RECIPE = """\
sources:
  checkpoint: {file: sub/mine.nemo}
  speech: {folder: ../speech}
  remote: {hf: owner/name@main, file: model.nemo}
  link: {url: "https://host/x.nemo?token=secret"}
targets:
  a: {step: write_tokens, inputs: {checkpoint: checkpoint}}
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedRecipe:
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/small.yaml").write_text(RECIPE)
    return load_recipe("small", Path("recipes/small.yaml"))


def test_a_path_is_relative_to_the_file_that_declares_it(loaded: LoadedRecipe) -> None:
    assert NamedSource(loaded, "checkpoint").path == Path("recipes/sub/mine.nemo")
    assert NamedSource(loaded, "speech").path == Path("speech")


def test_a_source_is_shown_without_secrets(loaded: LoadedRecipe) -> None:
    sources = [NamedSource(loaded, name) for name in loaded.recipe.sources]
    assert [source.doc for source in sources] == [f"Source: {source.shown}" for source in sources]
    shown = {source.name: source.shown for source in sources}
    assert shown == {
        "checkpoint": "sub/mine.nemo",
        "speech": "../speech",
        "remote": "model.nemo of owner/name@main",
        "link": "https://host/x.nemo?token=***",
    }


def test_an_error_begins_with_the_location_and_the_name(loaded: LoadedRecipe) -> None:
    source = NamedSource(loaded, "speech")
    assert (source.label, source.full_name) == ("recipes/small.yaml:3:3: sources.speech", "small:speech")

"""Which sources `doit pin` means, and what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from doit.exceptions import InvalidCommand

from artifacts.cli.pin_command import Pin
from small_model import MODEL_RECIPE, write_pipeline

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "pin: needs a source\n  fix: name one: doit pin checkpoint; the sources are: small:model"),
        (["shards"], "'shards' is not a source, and only a source has a pin\n  fix: .* needs: doit pin small:model"),
        (["modle"], r"no target is called 'modle'\n  fix: did you mean 'model'\?"),
    ],
)
def test_a_word_that_names_no_source_is_refused_in_two_lines(words: list[str], said: str) -> None:
    with pytest.raises(InvalidCommand, match=f"^{said}$"):
        Pin().execute({}, words)


@pytest.mark.parametrize("word", ["small:model", "m*", "small"])
def test_a_source_is_named_alone_by_a_pattern_or_by_its_recipe(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert Pin().execute({}, [word]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("small:model (recipes/model) is pinned to sha256 ")
    assert last.startswith("commit pipeline.lock.yaml; ")
    assert Pin().execute({}, [word]) == 0
    assert capsys.readouterr().out == f"{first.replace('to sha256', 'to these bytes already: sha256')}\n"


def test_an_optional_source_that_is_absent_is_left_out_unless_it_is_named() -> None:
    write_pipeline(MODEL_RECIPE.replace("{folder: model}", "{folder: model, optional: true}"))
    shutil.rmtree("recipes/model")
    assert Pin().execute({}, ["small"]) == 0
    with pytest.raises(InvalidCommand, match="no folder at 'recipes/model'\n  fix: put the folder there"):
        Pin().execute({}, ["small:model"])
    assert not Path("pipeline.lock.yaml").exists()

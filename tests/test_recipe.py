from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import RecipeError
from artifacts.recipe import LoadedRecipe, load_pipeline, load_recipe

BASE = """\
sources:
  checkpoint: {file: base.nemo}
  speech: {folder: ../speech}
targets:
  encoder:
    step: export_encoder
    inputs: {checkpoint: checkpoint}
    params: {opset: 17, dynamic_axes: true}
    resources: {memory_gib: 8}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes; its parent is the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("recipes/sub").mkdir(parents=True)
    return tmp_path / "recipes"


def load(text: str, name: str = "recipes/x.yaml") -> LoadedRecipe:
    """Load a recipe that says this."""
    Path(name).write_text(text)
    return load_recipe("x", Path(name))


def test_a_recipe_has_sources_and_targets_with_their_places() -> None:
    loaded = load(BASE)
    target = loaded.recipe.targets["encoder"]
    assert (target.step, target.inputs) == ("export_encoder", {"checkpoint": "checkpoint"})
    assert target.params == {"opset": 17, "dynamic_axes": True}
    assert target.resources.memory_gib == 8.0
    assert str(loaded.marked.place(("targets", "encoder", "params", "opset"))) == "recipes/x.yaml:8:21"


def test_a_recipe_that_extends_another_says_only_what_differs() -> None:
    Path("recipes/base.yaml").write_text(BASE)
    over = "extends: ../base.yaml\nsources: {checkpoint: {file: mine.nemo}}\ntargets: {encoder: {params: {opset: 18}}}"
    loaded = load(over, "recipes/sub/x.yaml")
    assert loaded.recipe.targets["encoder"].params == {"opset": 18, "dynamic_axes": True}
    assert loaded.recipe.targets["encoder"].step == "export_encoder"
    assert str(loaded.marked.place(("targets", "encoder", "params", "opset"))) == "recipes/sub/x.yaml:3:37"
    assert str(loaded.marked.place(("targets", "encoder", "params", "dynamic_axes"))) == "recipes/base.yaml:8:39"


def test_a_path_is_seen_from_the_file_that_it_is_written_in() -> None:
    Path("recipes/base.yaml").write_text(BASE)
    loaded = load("extends: ../base.yaml\nsources: {checkpoint: {file: mine.nemo}}", "recipes/sub/x.yaml")
    assert loaded.source_path("checkpoint") == Path("recipes/sub/mine.nemo")
    assert loaded.source_path("speech") == Path("speech")
    assert loaded.lock_file == Path("recipes/sub/x.lock.yaml")


def test_what_is_extended_can_extend_and_a_target_can_be_taken_away() -> None:
    Path("recipes/a.yaml").write_text(BASE)
    Path("recipes/b.yaml").write_text("extends: a.yaml\ntargets: {more: {step: s}, encoder: {params: {opset: 18}}}\n")
    loaded = load("extends: b.yaml\ntargets: {encoder: null}\n")
    assert list(loaded.recipe.targets) == ["more"]
    assert load("extends: b.yaml\n").recipe.targets["encoder"].params == {"opset": 18, "dynamic_axes": True}


def test_a_circle_of_recipes_is_told() -> None:
    Path("recipes/a.yaml").write_text("extends: x.yaml\n" + BASE)
    with pytest.raises(RecipeError, match=r"recipes/a.yaml:1:10: extends: 'x.yaml' leads back to itself"):
        load("extends: a.yaml\n")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{}", "give one of 'file', 'folder', 'url', or 'hf' with 'file'"),
        ("{file: a, folder: b}", "give one of"),
        ("{hf: o/n@r}", "'hf' needs 'file'"),
        ("{hf: o/n@r, file: f, folder: d}", "'hf' needs 'file'"),
        ("{hf: o/n, file: f}", "'hf' must read 'owner/name@revision'"),
        ("{url: 'ftp://host/f'}", "'url' must begin with 'https://'"),
        ("{url: 'file:///etc/passwd'}", "'url' must begin with 'https://'"),
        ("{file: a, sha256: ABC}", "must match pattern"),
    ],
)
def test_a_source_is_one_thing(source: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load(f"sources: {{s: {source}}}\n{BASE[BASE.index('targets') :]}")


@pytest.mark.parametrize("text", ["targets: {}", "sources: {a: {file: x}}"])
def test_a_recipe_that_makes_nothing_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="a recipe needs a target or a layout"):
        load(text)


def test_the_pipeline_names_recipes_and_pins() -> None:
    Path("pipeline.yaml").write_text("default: x\nrecipes: {x: recipes/x.yaml}\ntools: {onnx: 1.23.2}\n")
    pipeline = load_pipeline()
    assert (pipeline.default, pipeline.cache, pipeline.dist) == ("x", "cache", "dist")
    assert pipeline.tools == {"onnx": "1.23.2"}


def test_a_pin_that_yaml_takes_for_a_number_is_told_to_be_put_in_quotes() -> None:
    Path("pipeline.yaml").write_text("default: x\nrecipes: {x: recipes/x.yaml}\ntools: {numpy: 2.4}\n")
    with pytest.raises(
        RecipeError, match=r"pipeline.yaml:3:16: tools.numpy: must be a text, got 2.4\n  fix: put the value in"
    ):
        load_pipeline()


@pytest.mark.parametrize("name", ["artifacts", "logs", "downloads"])
def test_no_recipe_is_called_as_a_folder_of_the_store(name: str) -> None:
    Path("pipeline.yaml").write_text(f"default: {name}\nrecipes: {{{name}: recipes/x.yaml}}\ntools: {{}}\n")
    with pytest.raises(RecipeError, match=f"the name '{name}' is the store's own"):
        load_pipeline()


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        ("cache: ''", "'cache' must be a folder of its own"),
        ("cache: .", "'cache' must be a folder of its own"),
        ("dist: ..", "'dist' must be a folder of its own"),
        ("cache: /", "'cache' must be a folder of its own"),
        ("cache: x\ndist: x", "'cache' and 'dist' must lie apart"),
        ("cache: dist/cache", "'cache' and 'dist' must lie apart"),
        ("dist: cache/dist", "'cache' and 'dist' must lie apart"),
    ],
)
def test_results_lie_where_nothing_else_can_be_taken_for_them(places: str, problem: str) -> None:
    Path("pipeline.yaml").write_text(f"default: x\nrecipes: {{x: recipes/x.yaml}}\ntools: {{}}\n{places}\n")
    with pytest.raises(RecipeError, match=problem):
        load_pipeline()


@pytest.mark.parametrize("places", ["cache: ../cache", "cache: /big/disk/cache", "cache: a/cache\ndist: a/dist"])
def test_results_may_lie_on_another_disk(places: str) -> None:
    Path("pipeline.yaml").write_text(f"default: x\nrecipes: {{x: recipes/x.yaml}}\ntools: {{}}\n{places}\n")
    assert load_pipeline().cache in places

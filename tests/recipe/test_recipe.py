from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifacts.errors import RecipeError
from artifacts.recipe.recipe import LoadedRecipe, NamedSource, load_recipe

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
    """Load a recipe with this text."""
    Path(name).write_text(text)
    return load_recipe("x", Path(name))


def test_a_recipe_has_sources_and_targets_with_their_locations() -> None:
    loaded = load(BASE)
    target = loaded.recipe.targets["encoder"]
    assert (target.step, target.inputs) == ("export_encoder", {"checkpoint": "checkpoint"})
    assert target.params == {"opset": 17, "dynamic_axes": True}
    assert target.resources.memory_gib == 8.0
    assert str(loaded.document.location(("targets", "encoder", "params", "opset"))) == "recipes/x.yaml:8:21"


def test_a_recipe_that_extends_another_says_only_what_differs() -> None:
    Path("recipes/base.yaml").write_text(BASE)
    over = "extends: ../base.yaml\nsources: {checkpoint: {file: mine.nemo}}\ntargets: {encoder: {params: {opset: 18}}}"
    loaded = load(over, "recipes/sub/x.yaml")
    assert loaded.recipe.targets["encoder"].params == {"opset": 18, "dynamic_axes": True}
    assert loaded.recipe.targets["encoder"].step == "export_encoder"
    assert str(loaded.document.location(("targets", "encoder", "params", "opset"))) == "recipes/sub/x.yaml:3:37"
    assert str(loaded.document.location(("targets", "encoder", "params", "dynamic_axes"))) == "recipes/base.yaml:8:39"


def test_a_path_is_relative_to_the_file_that_contains_it() -> None:
    Path("recipes/base.yaml").write_text(BASE)
    loaded = load("extends: ../base.yaml\nsources: {checkpoint: {file: mine.nemo}}", "recipes/sub/x.yaml")
    assert NamedSource(loaded, "checkpoint").path == Path("recipes/sub/mine.nemo")
    assert NamedSource(loaded, "speech").path == Path("speech")


def test_an_extended_recipe_can_extend_and_a_target_can_be_removed() -> None:
    Path("recipes/a.yaml").write_text(BASE)
    Path("recipes/b.yaml").write_text("extends: a.yaml\ntargets: {more: {step: s}, encoder: {params: {opset: 18}}}\n")
    loaded = load("extends: b.yaml\ntargets: {encoder: null}\n")
    assert list(loaded.recipe.targets) == ["more"]
    assert load("extends: b.yaml\n").recipe.targets["encoder"].params == {"opset": 18, "dynamic_axes": True}


@pytest.mark.parametrize(
    ("text", "fact", "fix"),
    [
        ("targets:\n  encodr: null\n", "3:3: targets.encodr: its base has no target", "did you mean 'encoder'?"),
        ("targets:\n  encodr:\n", "3:3: targets.encodr: its base has no target", "did you mean 'encoder'?"),
        ("targets: {qqq: null}\n", "2:11: targets.qqq: its base has no target", "write its keys, or delete it"),
        ("sources:\n  speach: null\n", "3:3: sources.speach: its base has no source", "did you mean 'speech'?"),
        ("layouts: {encoder: null}\n", "2:11: layouts.encoder: its base has no layout", "write its keys, or delete it"),
    ],
)
def test_a_removal_of_what_no_base_has_is_refused(text: str, fact: str, fix: str) -> None:
    Path("recipes/a.yaml").write_text(BASE)
    Path("recipes/b.yaml").write_text("extends: a.yaml\n")
    for base in ("a", "b"):
        with pytest.raises(RecipeError) as caught:
            load(f"extends: {base}.yaml\n{text}")
        assert (caught.value.fact, caught.value.fix) == (f"recipes/x.yaml:{fact} of this name", fix)


def test_a_recipe_without_a_base_removes_nothing() -> None:
    with pytest.raises(RecipeError) as caught:
        load(BASE + "  encoder_fp16:\n")
    assert caught.value.fact == (
        "recipes/x.yaml:10:3: targets.encoder_fp16: has no keys, and no base has a target of this name"
    )
    assert caught.value.fix == "write its keys, or delete it"


def test_what_a_base_removed_may_be_removed_again() -> None:
    Path("recipes/a.yaml").write_text(BASE + "  more: {step: s}\nlayouts: {flat: {step: s}}\n")
    Path("recipes/b.yaml").write_text("extends: a.yaml\nsources: {speech: null}\nlayouts: null\n")
    loaded = load("extends: b.yaml\nsources: {speech: null}\ntargets: {more: null}\nlayouts: {flat: null}\n")
    assert (list(loaded.recipe.sources), list(loaded.recipe.targets)) == (["checkpoint"], ["encoder"])
    assert loaded.recipe.layouts == {}


def test_a_cycle_of_recipes_is_reported() -> None:
    Path("recipes/a.yaml").write_text("extends: x.yaml\n" + BASE)
    with pytest.raises(RecipeError, match=r"recipes/a.yaml:1:10: extends: 'x.yaml' leads back to itself"):
        load("extends: a.yaml\n")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("targets:\n  one: {step: s}\n  One: {step: s}\n", "3:3: targets: 'One' and 'one' differ by case alone"),
        ("sources:\n  one: {file: a}\nlayouts:\n  ONE: {step: s}\n", "4:3: layouts: 'ONE' and 'one' differ by case"),
    ],
)
def test_two_names_that_differ_by_case_alone_are_refused(text: str, fact: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(text)
    assert caught.value.fact.startswith(f"recipes/x.yaml:{fact}")


def test_a_chain_of_recipes_is_bounded_and_one_within_the_bound_is_read() -> None:
    Path("recipes/r0.yaml").write_text(BASE)
    for number in range(1, 2000):
        Path(f"recipes/r{number}.yaml").write_text(f"extends: r{number - 1}.yaml\n")
    assert load("extends: r30.yaml\n").recipe.targets["encoder"].params["opset"] == 17
    with pytest.raises(RecipeError, match=r"recipes/r1969.yaml:1:10: extends: the chain has more than 32 recipes"):
        load("extends: r1999.yaml\n")


@pytest.mark.parametrize(
    ("base", "fact"),
    [
        ("loop.yaml", r"recipes/x.yaml:1:10: extends: no such file: 'loop.yaml'"),
        ("mine.yaml", r"recipes/x.yaml:1:10: extends: 'mine.yaml' leads back to itself"),
        ("/dev/zero", r"/dev/zero: cannot be read: it is a device, not a regular file"),
        ("pipe.yaml", r"recipes/pipe.yaml: cannot be read: it is a named pipe, not a regular file"),
        ("sub", r"recipes/sub: cannot be read: Is a directory"),
        ('"a\\0b"', r"recipes/x.yaml:1:10: extends: must be the path of a recipe"),
        ("x" * 300, r"recipes/x.yaml:1:10: extends: no such file: 'x{60}...x{17}'"),
        ("[a]", r"recipes/x.yaml:1:10: extends: must be the path of a recipe"),
        ("''", r"recipes: cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_extended_is_reported(base: str, fact: str) -> None:
    Path("recipes/loop.yaml").symlink_to("loop.yaml")
    Path("recipes/mine.yaml").symlink_to("x.yaml")
    os.mkfifo("recipes/pipe.yaml")
    with pytest.raises(RecipeError, match=rf"{fact}\n  fix: "):
        load(f"extends: {base}\n")


def test_a_family_comes_with_the_package() -> None:
    loaded = load("extends: artifacts/parakeet-tdt\nsources: {checkpoint: {file: a.nemo}}\n")
    assert loaded.recipe.targets["encoder_fp32"].step == "export_encoder"
    with pytest.raises(
        RecipeError, match=r"recipes/x.yaml:1:10: .*'artifacts/parakeet'\n  fix: did you mean 'artifacts/"
    ):
        load("extends: artifacts/parakeet\n")


def test_a_recipe_may_name_what_its_name_means() -> None:
    targets = "{{wer_a: {{step: s}}, wer_b: {{step: s}}, c: {{step: s}}}}"
    text = f"default: [{{}}]\nsources: {{{{a: {{{{file: a}}}}}}}}\ntargets: {targets}\n"
    loaded = load(text.format("wer_*, c"))
    assert [name for name in ("a", "wer_a", "wer_b", "c") if loaded.is_default(name)] == ["wer_a", "wer_b", "c"]
    assert [name for name in ("a", "wer_a", "c") if load(text.format("c")).is_default(name)] == ["c"]
    with pytest.raises(RecipeError, match=r"recipes/x.yaml:1:14: default: no target or layout is called 'wer_c'"):
        load(text.format("c, wer_c"))
    with pytest.raises(RecipeError, match=r"recipes/x.yaml:1:10: default: must have at least 1 item"):
        load(text.format(""))

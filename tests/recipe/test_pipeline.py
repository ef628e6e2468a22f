"""A project's recipes are found by their files, its tools by their constraints; a mistake in either has its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.errors import RecipeError
from artifacts.recipe.pipeline import PACKAGED_CONSTRAINTS, load_pipeline


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a recipe `x`."""
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/x.yaml").touch()


def load(text: str = "") -> dict[str, str]:
    """The recipes of a pipeline whose default is `x`, with this text more."""
    Path("pipeline.yaml").write_text(f"default: x\n{text}")
    return {name: str(file) for name, file in load_pipeline().recipes.items()}


def test_a_recipe_has_the_name_of_its_file() -> None:
    Path("recipes/large.v3.yaml").touch()
    Path("pipeline.lock.yaml").touch()
    Path("recipes/notes.txt").touch()
    assert load() == {"large.v3": "recipes/large.v3.yaml", "x": "recipes/x.yaml"}


def test_recipes_are_where_the_pipeline_says() -> None:
    Path("others").mkdir()
    Path("others/y.yaml").touch()
    assert load("recipes: [recipes/*.yaml, 'others/*.yaml', recipes/x.yaml]\n") == {
        "x": "recipes/x.yaml",
        "y": "others/y.yaml",
    }
    assert load(f"recipes: ['{Path.cwd()}/recipes/*']\n") == {"x": f"{Path.cwd()}/recipes/x.yaml"}


def test_tools_are_those_of_the_constraints() -> None:
    Path("pipeline.yaml").write_text("default: x\n")
    Path("constraints.txt").write_text(
        "# a comment\n\nonnx==1.23.2\nNeMo.Toolkit[asr] == 3.0.0  # with an extra\n"
        "torch==2.13.0 ; sys_platform == 'linux'\nnumpy>=2\n--extra-index somewhere\n"
    )
    pipeline = load_pipeline()
    assert pipeline.version_of("onnx") == "1.23.2"
    assert pipeline.version_of("nemo_toolkit") == "3.0.0"
    assert pipeline.version_of("torch") == "2.13.0"
    packaged = dict(line.split("==") for line in PACKAGED_CONSTRAINTS.read_text().splitlines())
    assert pipeline.version_of("numpy") == packaged["numpy"], "what the project does not pin is the package's"
    assert pipeline.version_of("mytool") is None
    Path("constraints.txt").unlink()
    assert load_pipeline().version_of("onnx") == packaged["onnx"]
    Path("constraints.txt").write_bytes(b"\xff")
    with pytest.raises(RecipeError, match=r"constraints.txt: cannot be read: .*\n  fix: make it a readable UTF-8"):
        load_pipeline()


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "the file has more than 2000000 bytes"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
        (os.mkfifo, "it is a named pipe, not a regular file"),
    ],
)
def test_constraints_without_an_end_are_refused_at_once(make: Callable[[Path], object], fact: str) -> None:
    make(Path("constraints.txt"))
    with pytest.raises(RecipeError, match=f"constraints.txt: .*{fact}"):
        load()


@pytest.mark.parametrize(
    ("file", "fact"),
    [
        ("artifacts", "the name 'artifacts' is reserved for the store"),
        ("Logs", "the name 'Logs' is reserved for the store"),
        ("journal.jsonl", "the name 'journal.jsonl' is reserved for the store"),
        ("digests.sqlite-wal", "the name 'digests.sqlite-wal' is reserved for the store"),
        ("a b", "'a b' is not a valid name of a recipe"),
        ("-x", "'-x' is not a valid name of a recipe"),
        ("n" * 101, "'n+[.]+n+' is not a valid name of a recipe"),
        ("X", "'x' and 'X' differ by case alone"),
    ],
)
def test_a_file_that_cannot_name_a_recipe_is_refused(file: str, fact: str) -> None:
    Path(f"recipes/{file}.yaml").touch()
    with pytest.raises(RecipeError, match=f"recipes/.*: {fact}\n  fix: "):
        load()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("recipes: [none/*.yaml]", r"pipeline.yaml:2:10: recipes: no recipe matches none/\*.yaml"),
        ("recipes: []", r"pipeline.yaml:2:10: recipes: no recipe matches "),
        ("recipes: {x: recipes/x.yaml}", "pipeline.yaml:2:10: recipes: must be a list"),
        ("recipes: recipes/*.yaml", r"recipes: must be a list, .*\n  fix: write recipes: \[recipes/\*.yaml\]"),
        (
            "recipes: [recipes/*.yaml, other/x.yaml]",
            "pipeline.yaml:2:27: recipes: 'other/x.yaml' and 'recipes/x.yaml' have",
        ),
        ("tools: {onnx: 1.23.2}", "pipeline.yaml:2:1: tools: unknown key 'tools'"),
        ("cache: ''", "'cache' must be a folder of its own.*\n  fix: name a folder .*'cache: cache'"),
        ("cache: .", "'cache' must be a folder of its own"),
        ("dist: ..", "'dist' must be a folder of its own"),
        ("cache: /", "'cache' must be a folder of its own"),
        ("cache: x\ndist: x", "'cache' and 'dist' must not be inside one another\n  fix: move one of the two"),
        ("cache: dist/cache", "'cache' and 'dist' must not be inside one another"),
        ("dist: cache/dist", "'cache' and 'dist' must not be inside one another"),
        ('cache: "a\\0b"', "cache: must be a path, and no path has a NUL character"),
        ('recipes: ["a\\0b"]', "recipes.0: must be a path, and no path has a NUL character"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, problem: str) -> None:
    Path("other").mkdir()
    Path("other/x.yaml").touch()
    with pytest.raises(RecipeError, match=problem):
        load(text)


def test_the_default_is_one_of_the_recipes() -> None:
    Path("pipeline.yaml").write_text("default: xy\n")
    with pytest.raises(
        RecipeError, match=r"pipeline.yaml:1:10: default: no recipe is called 'xy'\n  fix: did you mean 'x'"
    ):
        load_pipeline()
    Path("pipeline.yaml").write_text("default: [x]\n")
    with pytest.raises(RecipeError, match=r"1:10: default: must be a text, .*\n  fix: write it without brackets: x"):
        load_pipeline()


@pytest.mark.parametrize("places", ["cache: ../cache", "cache: /big/disk/cache", "cache: a/cache\ndist: a/dist"])
def test_results_may_lie_on_another_disk(places: str) -> None:
    Path("pipeline.yaml").write_text(f"default: x\n{places}\n")
    assert load_pipeline().cache in places


def test_a_folder_whose_name_is_longer_than_file_systems_allow_is_refused_with_its_place() -> None:
    with pytest.raises(RecipeError, match=r"pipeline.yaml:2:8: cache: has a name of 256 bytes, file systems allow 255"):
        load(f"cache: folder/{'é' * 128}/cache\n")
    assert load(f"cache: folder/{'x' * 255}/cache\n")

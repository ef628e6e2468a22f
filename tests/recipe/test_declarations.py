"""What a recipe may declare: one kind of source, names that file systems have, paths that are paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import RecipeError
from artifacts.recipe.recipe import LoadedRecipe, load_recipe

TARGETS = "targets: {encoder: {step: export_encoder, inputs: {checkpoint: checkpoint}}}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of recipes; its parent is the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()


def load(text: str) -> LoadedRecipe:
    """Load a recipe with this text."""
    Path("recipes/x.yaml").write_text(text)
    return load_recipe("x", Path("recipes/x.yaml"))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{}", "needs one of 'file', 'folder', 'url', or 'hf' with 'file'\n  fix: add one, for example 'file: "),
        ("{file: a, folder: b}", "has both 'file' and 'folder'\n  fix: keep one"),
        ("{file: a, folder: b, url: 'https://host/f'}", "has 'file', 'folder' and 'url'\n  fix: keep one"),
        ("{hf: o/n@r}", "'hf' needs 'file', .*\n  fix: add it, for example 'file: .*.nemo'"),
        ("{hf: o/n@r, file: f, folder: d}", "has both 'hf' and 'folder'\n  fix: keep one"),
        ("{hf: o/n@r, url: 'https://host/f'}", "has both 'hf' and 'url'\n  fix: keep one"),
        ("{hf: o/n, file: f}", "'hf' must read 'owner/name@revision'\n  fix: write for example 'hf: nvidia/"),
        ("{url: 'ftp://host/f'}", "'url' must begin with 'https://'\n  fix: write for example 'url: https://"),
        ("{url: 'file:///etc/passwd'}", "'url' must begin with 'https://'"),
        ("{url: 'https://secret@host/f'}", "'url' contains a user name or password"),
        ("{url: 'https://u:secret@host:port/f'}", "'url' contains a host or port that is malformed"),
        ("{url: 'https://host:secret/f'}", "'url' contains a host or port that is malformed"),
        ('{url: "https://host/secret\\n"}', "'url' contains a control character"),
        ("{url: 'https://'}", "'url' names no host"),
        ("{url: ['https://u:secret@host/f?k=secret']}", "must be a text"),
        ("'https://u:secret@host/f?k=secret'", "must be a mapping"),
        ("{file: 'https://u:secret@host/f'}", "'file' is a path, and this is a web address\n  fix: use 'url'"),
        ("{folder: 's3://u:secret@host/f'}", "'folder' is a path, and this is a web address\n  fix: use 'url'"),
        ("{hf: o/n@r, file: ''}", "'file' must be a path inside the repository"),
        ("{hf: o/n@r, file: ../f}", "'file' must be a path inside the repository"),
        ("{hf: o/n@r, file: /f}", "'file' must be a path inside the repository"),
        ("{hf: o/n@r, file: a//f}", "'file' must be a path inside the repository"),
        ("{hf: o/n@r, file: a/}", "'file' must be a path inside the repository"),
        ("{hf: o/n@r, file: 'a\\f'}", "'file' must be a path inside the repository"),
        ('{hf: o/n@r, file: "a\\tf"}', "'file' must be a path inside the repository"),
        ("{url: 'https://host/f', optional: true}", "'optional' is for a file or folder .*\n  fix: remove 'optional'"),
        (
            "{file: a, sha256: abc}",
            'sha256: must be 64 hexadecimal digits, 0-9 and a-f, got "abc"\n  fix: write what sha256sum prints',
        ),
        (f"{{file: a, sha256: {'A' * 64}}}", "sha256: must be 64 hexadecimal digits, 0-9 and a-f"),
        ("{file: a, sha256: [abc]}", 'sha256: must be a text, got ."abc".\n  fix: write it without brackets: abc'),
    ],
)
def test_a_source_is_one_thing(source: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem) as caught:
        load(f"sources: {{s: {source}}}\n{TARGETS}")
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_the_fix_for_a_login_in_a_url_is_netrc() -> None:
    with pytest.raises(RecipeError) as caught:
        load(f"sources: {{s: {{url: 'https://user:secret@host/f'}}}}\n{TARGETS}")
    assert caught.value.fix == "put them into ~/.netrc: machine HOST login USER password PASSWORD"


@pytest.mark.parametrize("text", ["targets: {}", "sources: {a: {file: x}}"])
def test_a_recipe_without_targets_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="a recipe needs a target or a layout\n  fix: add one, for example"):
        load(text)


@pytest.mark.parametrize("section", ["sources", "targets", "layouts"])
def test_a_name_that_is_too_long_for_a_file_system_is_reported_with_its_location(section: str) -> None:
    value = "{file: a}" if section == "sources" else "{step: s}"
    loaded = load(f"{section}:\n  {'n' * 100}: {value}\n{'' if section == 'targets' else 'targets: {a: {step: s}}'}\n")
    assert "n" * 100 in getattr(loaded.recipe, section)
    with pytest.raises(RecipeError, match=rf"recipes/x.yaml:2:3: {section}.n+: must have at most 100 characters"):
        load(f"{section}:\n  {'n' * 101}: {value}\n")


@pytest.mark.parametrize(
    "name", ["'a\\nb'", '"a\\nb"', '"a\\e[31mb"', '"\\u202eab"', "-a", ".a", "''", "a/b", "ä", "'a '"]
)
def test_a_name_is_letters_and_digits(name: str) -> None:
    with pytest.raises(RecipeError, match="this name is not valid") as caught:
        load(f"targets:\n  {name}: {{step: s}}\n")
    assert caught.value.fix == "use letters, digits, '_', '.' and '-', and begin with a letter or digit"
    assert caught.value.fact.startswith("recipes/x.yaml:2:3: targets.")
    assert len(str(caught.value).splitlines()) == 2


def test_what_a_target_is_takes_one_line() -> None:
    with pytest.raises(RecipeError, match=r"targets.a.about: must be one line, got .*\n  fix: write it in one line"):
        load('targets: {a: {step: s, about: "one\\ntwo"}}\n')
    with pytest.raises(RecipeError, match=r"about: must be a text, got .*\n  fix: write it without brackets: one"):
        load("targets: {a: {step: s, about: [one]}}\n")
    with pytest.raises(RecipeError, match=r"about: must have at most 100 characters.*\n  fix: use 100 or fewer"):
        load(f"targets: {{a: {{step: s, about: {'x' * 101}}}}}\n")


def test_a_key_that_takes_a_list_or_a_text_says_how_it_is_written() -> None:
    with pytest.raises(RecipeError, match=r'default: must be a list, got "a"\n  fix: write default: \[a\]'):
        load("default: a\ntargets: {a: {step: s}}\n")
    with pytest.raises(RecipeError, match=r"inputs.model: must be a text, .*\n  fix: write it without brackets: b"):
        load("targets: {a: {step: s, inputs: {model: [b]}}}\n")
    with pytest.raises(RecipeError, match=r"inputs.model: must be a text, .*\n  fix: write one text"):
        load("targets: {a: {step: s, inputs: {model: {b: c}}}}\n")


def test_a_path_has_no_nul_character() -> None:
    with pytest.raises(RecipeError, match=r"sources.s.file: must be a path"):
        load('sources: {s: {file: "a\\0b"}}\n' + TARGETS)

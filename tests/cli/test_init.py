"""A new project is written into an empty folder, whole or not at all."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from artifacts.cli.init import DODO, FILES, init, main
from artifacts.errors import RecipeError
from artifacts.plan.plan import Job, load_plan

ROOT = Path(__file__).parents[2]


def test_its_plan_has_every_target_of_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = init(tmp_path / "new")
    assert {str(path.relative_to(tmp_path / "new")) for path in files} == {*FILES, "recipe.schema.json"}
    monkeypatch.chdir(tmp_path / "new")
    plan = load_plan()
    assert isinstance(plan.jobs["mine:shard_fp32"], Job)
    assert plan.jobs["mine:model_meta"].params["model_name"] == "mine"  # type: ignore[union-attr]


def test_it_has_the_commands_and_the_dodo_file_of_this_project(tmp_path: Path) -> None:
    init(tmp_path)
    ours, theirs = (tomllib.loads((folder / "pyproject.toml").read_text()) for folder in (ROOT, tmp_path))
    assert theirs["tool"]["doit"] == ours["tool"]["doit"]
    assert DODO.partition('"""\n\n')[2] == (ROOT / "dodo.py").read_text().partition('"""\n\n')[2]


@pytest.mark.parametrize("there", ["dodo.py", "recipes/mine.yaml", ".gitignore"])
def test_a_folder_that_has_one_of_its_files_is_left_as_it_is(tmp_path: Path, there: str) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / there).write_text("mine")
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(RecipeError, match=f"{there}' is there already\n  fix: name an empty folder"):
        init(tmp_path)
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_it_says_what_it_wrote_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "new")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"wrote {tmp_path}/new/dodo.py"
    assert lines[-1] == f"next: copy a checkpoint to {tmp_path}/new/mine.nemo, then: cd {tmp_path}/new; doit list"


def test_it_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"speech-artifacts {importlib.metadata.version('speech-artifacts')}\n"


def test_a_mistake_is_told_in_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["step", "shard_weight"]) == 3
    assert capsys.readouterr().err == "ERROR: no step is called 'shard_weight'\n  fix: did you mean 'shard_weights'?\n"
    assert main(["inti"]) == 3
    assert capsys.readouterr().err == "ERROR: speech-artifacts has no command 'inti'\n  fix: did you mean 'init'?\n"
    assert main(["start"]) == 3
    for words in ([], ["init", "--hel"], ["init", "a", "b"]):
        with pytest.raises(SystemExit, match="3"):
            main(words)
    assert main(["init", str(tmp_path / "file" / "new")]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(("ERROR: ", "  fix: ")) for line in lines] == [True] * 10

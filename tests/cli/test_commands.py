"""The faces of doit's own commands; what they do is tried through `doit` in end_to_end/."""

from __future__ import annotations

import json
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from artifacts.cli.commands import DryRun, Gc, Schema, Verify, Why
from artifacts.plan.schema import recipe_schema
from artifacts.plan.step_files import known_steps

ROOT = Path(__file__).parents[2]


def test_the_project_tells_doit_where_its_commands_are() -> None:
    plugins = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["doit"]["plugins"]["command"]
    refused = {"ignore", "forget", "reset-dep", "dumpdb", "clean", "strace", "info"}
    ours = {"run", "list", "help", "why", "plan", "verify", "gc", "outdated", "pin", "schema", "step", "tabcompletion"}
    assert set(plugins) == ours | refused
    for name, place in plugins.items():
        module, _, attribute = place.partition(":")
        command = getattr(import_module(module), attribute)
        assert issubclass(command, Command)
        assert command.name == name
        assert bool(command.doc_purpose) == (name not in refused), name


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", [Why, DryRun, Verify])
def test_an_unknown_target_is_refused_in_two_lines(command: type[Command]) -> None:
    with pytest.raises(InvalidCommand, match=r"no target is called 'shard'\n  fix: did you mean 'shards'\?"):
        command().execute({}, ["shard"])


@pytest.mark.parametrize("command", [Why, DryRun, Verify, Gc])
def test_a_project_that_cannot_be_read_is_told_in_two_lines(
    command: type[Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidCommand, match=r"pipeline.yaml: no such file\n  fix: "):
        command().execute({}, [])


@pytest.mark.usefixtures("here")
def test_gc_takes_no_target() -> None:
    with pytest.raises(InvalidCommand, match="gc takes no target"):
        Gc().execute({}, ["shards"])


@pytest.mark.usefixtures("here")
def test_the_schema_is_written_into_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert Schema().execute({}, []) == 0
    assert json.loads(Path("recipe.schema.json").read_text()) == recipe_schema(known_steps())
    assert capsys.readouterr().out.splitlines()[1] == "# yaml-language-server: $schema=../recipe.schema.json"
    with pytest.raises(InvalidCommand, match="schema takes no target"):
        Schema().execute({}, ["shards"])


@pytest.mark.usefixtures("here")
def test_a_project_in_which_nothing_was_built_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert Why().execute({}, ["shards"]) == 0
    assert (
        capsys.readouterr().out == "small:shards will be built:\n  it was never built\n  small:model is found first\n"
    )
    assert DryRun().execute({}, []) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 to find, 3 to build"
    assert Verify().execute({}, []) == 0
    assert capsys.readouterr().out == "0 of 0 targets intact, 0 B read\n"
    assert Gc().execute({}, []) == 0
    assert capsys.readouterr().out == "removed 0 artifacts and downloads, 0 records, 0 B\n"

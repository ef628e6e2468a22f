"""The parts; what doit's commands do is tried through `doit` in end_to_end/."""

from __future__ import annotations

import pytest
from doit.cmd_base import Command, DodoTaskLoader
from doit.plugin import PluginDict

from artifacts.cli.commands import Gc, Outdated, Schema, Verify, Why
from artifacts.cli.disabled_commands import Clean, Info
from artifacts.cli.doit_commands import Help, List, Run
from artifacts.cli.pin_command import Pin
from artifacts.cli.step_command import Step


def test_help_lists_our_commands_first_and_none_that_is_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    commands: dict[str, type[Command]] = PluginDict()
    for command in (Clean, Gc, Help, Info, List, Outdated, Pin, Run, Schema, Step, Verify, Why):
        commands[command.name] = command
    commands["plan"] = Why
    help_ = Help(task_loader=DodoTaskLoader(), cmds=commands, config={})
    help_.execute({}, [])
    lines = capsys.readouterr().out.partition("commands:\n")[2].splitlines()
    names = ["run", "plan", "why", "list", "verify", "gc", "outdated", "pin", "step", "schema", "help"]
    assert [line.split()[1] for line in lines] == names
    assert all(len(line.split()) > 3 for line in lines)


def test_help_works_in_a_project_whose_settings_are_older_than_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    commands: dict[str, type[Command]] = PluginDict()
    commands |= {command.name: command for command in (Help, List, Run)}
    Help(task_loader=DodoTaskLoader(), cmds=commands, config={}).print_help()
    lines = capsys.readouterr().out.partition("commands:\n")[2].splitlines()
    assert [line.split()[1] for line in lines] == ["run", "list", "help"]


@pytest.mark.parametrize("name", ["always", "single"])
def test_options_that_would_bypass_the_store_do_not_exist(name: str) -> None:
    assert name not in {option["name"] for option in Run.cmd_options}

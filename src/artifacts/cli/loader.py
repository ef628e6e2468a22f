"""doit's loader of this project: the words of a command line decide which recipes are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from doit import doit_cmd
from doit.cmd_base import Command, DodoTaskLoader

from artifacts.cli.doit_commands import Help
from artifacts.cli.options import UserError, options_among, unknown_option
from artifacts.cli.standard_streams import prepare_streams
from artifacts.cli.warning_lines import print_warnings_in_lines
from artifacts.errors import RecipeError

BEFORE_TASKS = 3  # the exit code that doit gives to a mistake that is found before a task runs


class Loader(DodoTaskLoader):  # type: ignore[misc]  # doit has no types
    """Load dodo.py, and the recipes that the command is about. doit makes it before it reads the command line."""

    def __init__(self) -> None:
        super().__init__()
        prepare_streams()
        print_warnings_in_lines()
        if sys.argv[1:2] == ["--help"]:
            doit_cmd.Help = Help  # doit answers this word by a class that no plugin replaces
        error = _bad_word(sys.argv[1:], [option["long"] for option in self.cmd_options])
        if error is not None:
            print(f"ERROR: {error}", file=sys.stderr)
            sys.exit(BEFORE_TASKS)

    def setup(self, opt_values: Any) -> None:
        """Import dodo.py. Raises `UserError`."""
        file = opt_values["dodoFile"]
        if not file.endswith(".py"):
            raise UserError(RecipeError(f"-f '{file}': is not a Python file", "name the project's dodo.py"))
        try:
            Path.cwd()
        except OSError as cause:
            fix = "go to the project's folder, then run again"
            raise UserError(RecipeError(f"the working folder: {cause.strerror}", fix)) from None
        super().setup(opt_values)

    def load_tasks(self, cmd: Command, pos_args: list[str]) -> list[Any]:
        """Return doit's tasks of the recipes that the words name; of all recipes where `cmd.of_all_recipes` is set."""
        session = self.namespace["SESSION"]
        session.load(None if getattr(cmd, "of_all_recipes", False) else pos_args)
        tasks: list[Any] = super().load_tasks(cmd, pos_args)
        for task in tasks:
            if task.name in session.pipeline.recipes:
                task.task_dep = session.plan.meant(task.name)  # for doit, the group of all its targets
        return tasks


def _bad_word(words: list[str], options: list[str]) -> RecipeError | None:
    """Return the error for a word that doit would fail on, take for one of its own variables, or complete.

    `options` are those of the loader, which may be in front of a command.
    """
    if "" in words:  # doit looks at the first letter of each
        return RecipeError("a word of the command line is empty", "name a target, or leave the word out")
    if words[:1] == ["step"]:  # its values are paths and params
        return None
    for option in options_among(words, "", []):
        begun = [f"--{name}" for name in options if f"--{name}".startswith(option) and option != f"--{name}"]
        if begun and len(option) > 2:  # doit would complete it, in front of a command
            return unknown_option(f"option {option} not recognized", option, begun, "see: doit help run")
    for word in words:
        if "=" in word and not word.startswith("-"):
            fact = f"'{word}': no target has a '=' in its name"
            return RecipeError(fact, "set parameters in the recipe; give an option its value as --option=value")
    return None

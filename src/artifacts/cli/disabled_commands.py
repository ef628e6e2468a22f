"""doit's commands that mean nothing here, each with the command to use instead. pyproject.toml names them."""

from __future__ import annotations

from typing import Any

from doit.cmd_base import Command

from artifacts.cli.options import UserError
from artifacts.errors import RecipeError


class DisabledCommand(Command):  # type: ignore[misc]  # doit has no types
    """A command of doit that would change doit's database, of which nothing is kept here. `doit help` omits it."""

    fact = ""
    instead = ""

    def parse_execute(self, _words: list[str]) -> int:
        """Raise `UserError`, whatever the options are."""
        return self.execute({}, [])

    def execute(self, _options: Any, _args: list[str]) -> int:
        """Raise `UserError`."""
        raise UserError(RecipeError(f"doit {self.get_name()}: {self.fact}", self.instead))


class Ignore(DisabledCommand):
    """doit's `ignore`."""

    name = "ignore"
    fact = "a target cannot be ignored"
    instead = "name the targets that you want: doit TARGET"


class Forget(DisabledCommand):
    """doit's `forget`."""

    name = "forget"
    fact = "the recipe, the code and the bytes decide what is rebuilt; there is nothing to forget"
    instead = "see what decides with: doit why TARGET"


class ResetDep(Forget):
    """doit's `reset-dep`."""

    name = "reset-dep"


class DumpDb(Forget):
    """doit's `dumpdb`."""

    name = "dumpdb"


class Clean(DisabledCommand):
    """doit's `clean`."""

    name = "clean"
    fact = "targets are not removed one by one"
    instead = "remove what no recipe needs with: doit gc"


class Strace(DisabledCommand):
    """doit's `strace`."""

    name = "strace"
    fact = "steps run in processes of their own, which doit cannot trace"
    instead = "read a step's inputs in its recipe, and what it printed in cache/logs/"


class Info(DisabledCommand):
    """doit's `info`."""

    name = "info"
    fact = "doit does not know what decides a rebuild"
    instead = "see what a target needs with: doit plan TARGET"

"""doit's commands that mean nothing here, each with the one to use instead; named in pyproject.toml."""

from __future__ import annotations

from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand


class _Refused(Command):  # type: ignore[misc]  # doit has no types
    """A command of doit's that would say that it did something to doit's database, of which nothing is kept."""

    fact = ""
    instead = ""

    def parse_execute(self, _words: list[str]) -> int:
        """Refuse, whatever the options are."""
        return self.execute({}, [])

    def execute(self, _options: Any, _args: list[str]) -> int:
        """Refuse."""
        raise InvalidCommand(f"{self.fact}\n  fix: {self.instead}")


class Ignore(_Refused):
    """doit's `ignore`, refused."""

    name = "ignore"
    doc_purpose = "not here: name the targets that you want instead"
    fact = "no target can be ignored"
    instead = "name the targets that you want, as in: doit TARGET"


class Forget(_Refused):
    """doit's `forget`, refused."""

    name = "forget"
    doc_purpose = "not here: what is built is decided by what it is made of"
    fact = "there is nothing to forget: what decides a rebuild is the recipe, the code and the bytes themselves"
    instead = "see what decides with: doit why TARGET"


class ResetDep(Forget):
    """doit's `reset-dep`, refused."""

    name = "reset-dep"


class DumpDb(Forget):
    """doit's `dumpdb`, refused."""

    name = "dumpdb"


class Clean(_Refused):
    """doit's `clean`, refused."""

    name = "clean"
    doc_purpose = "not here: gc drops what no recipe needs"
    fact = "targets are not cleaned one by one"
    instead = "drop what no recipe needs with: doit gc"


class Strace(_Refused):
    """doit's `strace`, refused."""

    name = "strace"
    doc_purpose = "not here: a step's inputs are what its recipe names"
    fact = "steps run in processes of their own, which doit cannot trace"
    instead = "read a step's inputs in its recipe; what it printed is in cache/logs/"


class Info(_Refused):
    """doit's `info`, refused."""

    name = "info"
    doc_purpose = "not here: plan and why say what a target needs"
    fact = "doit's own view of a target says nothing of what decides a rebuild"
    instead = "see what a target needs with: doit plan TARGET"

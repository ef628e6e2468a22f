"""Command lines of doit's commands: their options, and their mistakes in two lines."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit.cmd_base import Command, DodoTaskLoader
from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from artifacts.errors import ArtifactsError, RecipeError, disk_error

# Of doit's own database, reporters and processes, none of which is used here.
NOT_OPTIONS = ("dep_file", "backend", "check_file_uptodate", "outfile", "reporter", "par_type")
BEFORE_TASKS = 3  # the exit code that doit gives to a mistake that is found before a task runs


class Loader(DodoTaskLoader):  # type: ignore[misc]  # doit has no types
    """doit's loader of dodo.py. doit makes it before it looks at the words of a command line."""

    def __init__(self) -> None:
        super().__init__()
        if sys.stdout is None:  # closed by who started this: `>&-`
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # to the end of the process
        if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack characters of a recipe or of a path
            sys.stdout.reconfigure(errors="backslashreplace")
        if "" in sys.argv[1:]:  # doit looks at the first letter of each
            error = RecipeError("a word of the command line is empty", "name a target, or leave the word out")
            print(f"ERROR: {error}", file=sys.stderr)
            sys.exit(BEFORE_TASKS)

    def setup(self, opt_values: Any) -> None:
        """Import the dodo file."""
        if not opt_values["dodoFile"].endswith(".py"):
            error = RecipeError(f"-f '{opt_values['dodoFile']}': not a Python file", "name the project's dodo.py")
            raise InvalidDodoFile(str(error))
        try:
            Path.cwd()
        except OSError as cause:
            error = RecipeError(f"the working folder: {cause.strerror}", "go to the project's folder, then run again")
            raise InvalidDodoFile(str(error)) from None
        super().setup(opt_values)


@contextlib.contextmanager
def in_two_lines() -> Iterator[None]:
    """Raise `InvalidCommand`, which doit prints without a traceback, for a mistake or a disk that is not in order."""
    try:
        yield
    except ArtifactsError as error:
        raise InvalidCommand(str(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        cause = disk_error(error, Path())
        if cause is None:
            raise
        raise InvalidCommand(str(cause)) from None


class Options(Command):  # type: ignore[misc]  # doit has no types
    """A command whose bad options are told in two lines, as is what doit says of a dodo file."""

    def get_options(self) -> list[Any]:
        """doit's options, without those that would do nothing here."""
        options: list[Any] = super().get_options()
        for option in options:
            if option.name in NOT_OPTIONS:
                option.short = option.long = ""
        return options

    def parse_execute(self, in_args: list[str]) -> Any:
        """Parse, then execute. doit's own message about an option quotes all of its parser."""
        fix = f"see the options with: doit help {self.name}"
        try:
            return super().parse_execute(in_args)
        except CmdParseError as error:
            text = str(error)
            unknown = re.match(r"Error parsing \w+: (.*?) \(parsing options: ", text, re.DOTALL)
            named = re.match(r"Error parsing parameter ('\w+')", text)
            fact = unknown[1] if unknown else f"{named[1]}: {text.splitlines()[-1]}" if named else text
            raise InvalidCommand(str(RecipeError(fact, fix))) from None
        except (InvalidCommand, InvalidDodoFile, InvalidTask) as error:
            if re.fullmatch(r".*\n  fix: .*", str(error)):
                raise
            raise InvalidCommand(str(RecipeError(" ".join(str(error).split()), fix))) from None

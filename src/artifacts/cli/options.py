"""Options of doit's commands, and mistakes on a command line as two-line errors."""

from __future__ import annotations

import contextlib
import difflib
import getopt
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from doit.cmd_base import Command, DoitCmdBase
from doit.cmdparse import CmdOption, CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from artifacts.errors import ArtifactsError, RecipeError, disk_error

# Of doit's own database, reporters, processes and captured output, none of which is used here.
NOT_OPTIONS = (
    "dep_file", "backend", "codec_cls", "check_file_uptodate", "outfile", "reporter", "par_type", "verbosity",
    "failure_verbosity", "auto_delayed_regex", "pdb", "list_deps", "private",
)  # fmt: skip
HELP_OPTIONS = {"-h", "--help"}
HIDDEN = {"short": "", "long": "", "section": ""}
HELP_TEXTS = {
    "num_process": "build up to JOBS targets at the same time, as far as their memory fits",
    "continue": "after a failure, build what does not need the failed target",
    "subtasks": "list the targets of every recipe",
    "quiet": "print names alone",
    "template": "print each target by this text, for example '{name}: {doc}'",
    "sort": "sort by name (the default) or by definition, the order of the recipe",
    "dodoFile": "the project's dodo.py, if it is elsewhere",
    "cwdPath": "work in this folder",
    "seek_file": "look for dodo.py in the parent folders too",
    "shell": "print the script for bash (the default) or zsh",
    "hardcode_tasks": "write the targets of now into the script",
}
METAVARS = {
    "num_process": "JOBS", "template": "TEXT", "sort": "ORDER", "dodoFile": "FILE", "cwdPath": "FOLDER",
    "shell": "SHELL",
}  # fmt: skip
# doit's default is 0, one job at a time: it is not a number that can be typed.
DEFAULTS = {"num_process": None}
WANTED = {int: "a whole number", bool: "true or false"}


class UserError(InvalidCommand):  # type: ignore[misc]  # doit has no types
    """A two-line error that doit prints without a traceback; the exit code is 3."""

    def __init__(self, error: ArtifactsError) -> None:
        super().__init__(str(error))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Raise `UserError` for an `ArtifactsError`, and for an OSError that the disk is to blame for."""
    try:
        yield
    except ArtifactsError as error:
        raise UserError(error) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        cause = disk_error(error, Path())
        if cause is None:
            raise
        raise UserError(cause) from None


class Option(CmdOption):  # type: ignore[misc]  # as above
    """An option of doit whose bad values are told with the option as it is typed."""

    def str2type(self, str_val: Any) -> Any:
        """Return the value that a text means. Raises `UserError`."""
        try:
            return super().str2type(str_val)
        except CmdParseError:
            wanted = f"one of {', '.join(self.choices)}" if self.choices else WANTED[self.type]
            error = RecipeError(f"{self.help_param()}: must be {wanted}, got '{str_val}'", "correct the option")
            raise UserError(error) from None


class Options(Command):  # type: ignore[misc]  # as above
    """A command that has the options that mean something here, and whose mistakes are told in two lines."""

    def get_options(self) -> list[Option]:
        """Return the options of the command, of doit, and of its loader; those of NOT_OPTIONS cannot be typed."""
        loader = self.loader.cmd_options if isinstance(self, DoitCmdBase) else ()
        options = [*getattr(self, "base_options", ()), *loader, *self.cmd_options]
        return [_option(one) for one in options]

    def parse_execute(self, in_args: list[str]) -> Any:
        """Parse the words and execute the command, or print its help. Raises `UserError` for what doit refuses."""
        fix = f"see the options with: doit help {self.name}"
        if not self._visible_options():
            fix = f"leave it out: doit {self.name} takes no options"
        short, long = self.cmdparser.get_short(), self.cmdparser.get_long()
        given = list(options_among(in_args, short, long))
        if set(given) & HELP_OPTIONS:
            self.print_help()
            return 0
        known = [f"--{name.rstrip('=')}" for name in long]
        for option in given:  # getopt would take `--continu` for the option that begins so
            if option.startswith("--") and option not in known:
                raise UserError(unknown_option(f"option {option} not recognized", option, known, fix))
        try:
            return super().parse_execute(self._options_first(in_args))
        except UserError:
            raise
        except CmdParseError as error:
            cause = error.__context__
            fact = cause.msg if isinstance(cause, getopt.GetoptError) else " ".join(str(error).split())
            raise UserError(RecipeError(fact, fix)) from None
        except (InvalidCommand, InvalidDodoFile, InvalidTask) as error:
            raise UserError(RecipeError(" ".join(str(error).split()), fix)) from None

    def help(self) -> str:
        """Return the purpose of the command, its usage, and its options if it has any."""
        text = ["PURPOSE", *_wrapped(self.doc_purpose, 4), "", "USAGE"]
        text += _wrapped(f"doit {self.name} {self.doc_usage}", 4)
        options = self._visible_options()
        if options:
            text += ["", "OPTIONS"]
        for option in options:
            text += [*_wrapped(option.help_param(), 4), *_wrapped(option.help, 10)]
            if option.inverse:
                text += [*_wrapped(f"--{option.inverse}", 4), *_wrapped(f"opposite of --{option.long}", 10)]
        return "\n".join(text)

    def _visible_options(self) -> list[Option]:
        visible = [option for option in self.cmdparser.options if option.short or option.long]
        return sorted(visible, key=lambda option: bool(option.section))  # the command's own, then the loader's

    def print_help(self) -> None:
        """Print the options of the command, as `doit help COMMAND` does."""
        print(self.help())

    def _options_first(self, words: list[str]) -> list[str]:
        """Return the words with the options in front: doit takes none behind the first target."""
        try:
            options, others = getopt.gnu_getopt(words, self.cmdparser.get_short(), self.cmdparser.get_long())
        except getopt.GetoptError:
            return words  # doit reports the mistake
        given = [f"{name}={value}" if name.startswith("--") and value else name + value for name, value in options]
        return [*given, "--", *others] if others else given


def options_among(words: list[str], short: str, long: list[str]) -> Iterator[str]:
    """Yield the options among the words, each as `-x` or `--name`, up to a `--`. getopt takes `short` and `long`."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            return
        if word.startswith("--"):
            name = word.partition("=")[0]
            yield name
            if name == word and f"{name[2:]}=" in long:
                next(rest, None)  # its value
        elif word.startswith("-"):
            for index, letter in enumerate(word[1:], 2):
                yield f"-{letter}"
                if f"{letter}:" in short:  # its value follows
                    if index == len(word):
                        next(rest, None)
                    break


def unknown_option(fact: str, option: str, known: Iterable[str], otherwise: str) -> RecipeError:
    """Return the error for an unknown option, with the option that it abbreviates or resembles as its fix."""
    names = [name.lstrip("-") for name in known]
    word = option.lstrip("-")
    near = [name for name in names if name.startswith(word)] or difflib.get_close_matches(word, names, n=1)
    return RecipeError(fact, f"did you mean '--{near[0]}'?" if near else otherwise)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, 78, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _option(declared: dict[str, Any]) -> Option:
    """Return an option with our own help text; one of NOT_OPTIONS without a spelling."""
    name = declared["name"]
    if name in NOT_OPTIONS:
        return Option(declared | HIDDEN)
    ours: dict[str, Any] = {"help": HELP_TEXTS[name]} if name in HELP_TEXTS else {}
    ours |= {"metavar": METAVARS[name]} if name in METAVARS else {}
    return Option(declared | ours | ({"default": DEFAULTS[name]} if name in DEFAULTS else {}))

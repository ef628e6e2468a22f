"""doit's own commands, changed for this project: run, list, help, tabcompletion. pyproject.toml names them."""

from __future__ import annotations

import contextlib
import difflib
import sys
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.cmd_completion import TabCompletion as DoitTabCompletion
from doit.cmd_help import Help as DoitHelp
from doit.cmd_list import List as DoitList
from doit.cmd_run import Run as DoitRun
from doit.exceptions import InvalidCommand

from artifacts.cli.disabled_commands import DisabledCommand
from artifacts.cli.interrupts import end_silently, interrupt_on_signals
from artifacts.cli.options import Options, UserError, user_errors
from artifacts.cli.tasks import DoitReporter
from artifacts.errors import ArtifactsError, RecipeError
from artifacts.plan.plan import Job, is_pattern, load_plan
from artifacts.recipe.validate import did_you_mean

# Exit codes. docs/reference/environment.md lists all.
TARGET_FAILED, DOIT_ERROR, INTERRUPTED = 1, 2, 130
MOST_JOBS = 1000
ORDER = ("run", "plan", "why", "list", "verify", "gc", "outdated", "pin", "step", "schema")
HELP = """doit [TARGET ...] [-n JOBS] [--continue]

Build targets: reuse what is current, restore from the store, or run the step.
A target is a name of the default recipe, `recipe:name`, a recipe, or a pattern such as 'size_*'.

commands:"""


class Run(Options, DoitRun):  # type: ignore[misc]  # doit has no types
    """`doit run`, and `doit` alone. Workers are threads; an unknown target is answered with the nearest one."""

    name = "run"
    doc_purpose = "build targets; `doit` alone is the same"
    doc_usage = "[TARGET ...]"
    # Drop doit's `--always-execute` and `--single`: both would bypass the store.
    cmd_options = tuple(option for option in DoitRun.cmd_options if option["name"] not in ("always", "single"))

    def __init__(self, cmds: Any = None, **kwargs: Any) -> None:
        super().__init__(cmds=cmds, **kwargs)
        self._cmds = cmds
        self._help_settings = kwargs

    def print_help(self) -> None:
        """Print the options of `doit run`. For `doit -h`, which names no command, list the commands."""
        if sys.argv[1:2] == [self.name]:
            super().print_help()
        else:
            Help(cmds=self._cmds, **self._help_settings).execute({}, [])

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the tasks. Each step has its own process, so a worker is a thread that waits for it."""
        params.update(par_type="thread", always=False, single=False)
        ended_by = interrupt_on_signals()
        with user_errors():
            try:
                return self._run(params, args)
            except UserError:
                raise
            except InvalidCommand as error:
                if error.not_found is None:
                    raise
                raise _unknown(error.not_found) from None
            except KeyboardInterrupt:
                with contextlib.suppress(OSError):  # a terminal that hung up
                    # Between the last task and the report, doit does not catch an interrupt.
                    if isinstance(reporter := params["reporter"], DoitReporter) and reporter.is_open:
                        reporter.complete_run()
                    print("interrupted; what was finished is kept", file=sys.stderr)
                return ended_by[0] if ended_by else INTERRUPTED
            finally:
                end_silently()

    def _run(self, params: Any, args: list[str]) -> int:
        jobs = params["num_process"]
        if jobs is None:
            params["num_process"] = 0  # for doit: one at a time, in this thread
        elif not 1 <= jobs <= MOST_JOBS:
            raise RecipeError(f"-n: must be from 1 to {MOST_JOBS}, got {jobs}", "correct it: doit -n 2")
        words = _expanded(args) if any(map(is_pattern, args)) else args
        # doit drops every word after one that it meets twice.
        result: int = super().execute(params, list(dict.fromkeys(words)))
        reporter = params["reporter"]
        if result == DOIT_ERROR and isinstance(reporter, DoitReporter) and not reporter.has_own_error:
            # doit counts a target that was not tried, because another failed, as an error of its own.
            return TARGET_FAILED
        return result


class List(Options, DoitList):  # type: ignore[misc]  # as above
    """`doit list`: the targets of the default recipe, and the names of the others."""

    name = "list"
    doc_purpose = "list targets; --all for those of every recipe"
    doc_usage = "[TARGET ...]"
    cmd_options = tuple(option for option in DoitList.cmd_options if option["name"] != "status")  # see `doit plan`

    def execute(self, params: Any, args: list[str]) -> int:
        """List targets."""
        self.of_all_recipes = params["subtasks"]
        params["status"] = False
        with user_errors():
            _check_template(params["template"])
            if params["quiet"] and params["template"] is None:
                params["template"] = "{name}"  # doit would pad it with blanks
            result: int = super().execute(params, _expanded(args) if args else [])
            sys.stdout.flush()
        return result


class Help(Options, DoitHelp):  # type: ignore[misc]  # as above
    """`doit help`: the commands of this project, without those of doit that are disabled."""

    name = "help"
    doc_purpose = "show this, or the options of a command: doit help COMMAND"
    doc_usage = "[COMMAND or TARGET]"

    def execute(self, params: Any, args: list[str]) -> int:
        """Print the commands, or the help of a command or target. Raises `UserError` for a word that names neither."""
        with user_errors():
            if len(args) > 1:
                raise RecipeError(f"help: takes one command or target, got {len(args)}", f"doit help {args[0]}")
            if not args:
                self.print_usage(self.cmds)
            elif args[0] in self.cmds:
                command = self.cmds[args[0]](cmds=self._cmds, **self.init_kwargs)
                if isinstance(command, DisabledCommand):
                    command.parse_execute([])  # raises: it says what to use instead
                print(command.help())
            else:
                DoitCmdBase.execute(self, params, args)
        return 0

    def _execute(self, pos_args: list[str]) -> None:
        """Print what a target is. doit has loaded the tasks."""
        if not super()._execute(pos_args):
            known = [*self._enabled(self.cmds), *(task.name for task in self.task_list)]
            fix = did_you_mean(pos_args[0], known, "see the commands with: doit help; the targets: doit list --all")
            raise RecipeError(f"no command or target is called '{pos_args[0]}'", fix)

    def print_usage(self, cmds: dict[str, Any]) -> None:
        """Print each command with its purpose."""
        print(HELP)
        for name in self._enabled(cmds):
            print(f"  doit {name:<16}{cmds[name].doc_purpose}")

    @staticmethod
    def _enabled(cmds: dict[str, Any]) -> list[str]:
        enabled = [name for name in cmds if not issubclass(cmds[name], DisabledCommand)]
        # The pyproject.toml of a project may be older than the package, and name fewer commands.
        return [*(name for name in ORDER if name in enabled), *sorted(set(enabled) - set(ORDER))]

    def print_help(self) -> None:
        """Print what `doit help` prints."""
        self.print_usage(self.cmds)


class TabCompletion(Options, DoitTabCompletion):  # type: ignore[misc]  # as above
    """`doit tabcompletion`."""

    name = "tabcompletion"


def _expanded(words: list[str]) -> list[str]:
    """Return the words, with the targets of a pattern in its place. Raises `RecipeError` for an unknown word."""
    plan = load_plan(words=words)
    names = []
    for word in words:
        meant = plan.meant(word)
        own = "" if ":" in word else f"{plan.pipeline.default}:"
        # doit has no task for a source without the recipe's name.
        short = [name.removeprefix(own) if isinstance(plan.jobs[name], Job) else name for name in meant]
        names += short if is_pattern(word) else [word]
    return names


def _check_template(template: str | None) -> None:
    try:
        (template or "").format(name="", doc="")
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError, MemoryError) as error:
        fact = f"--template '{template}': {type(error).__name__}: {error}"
        raise RecipeError(fact, "use {name} and {doc}: doit list --template '{name}: {doc}'") from None


def _unknown(word: str) -> ArtifactsError:
    try:
        load_plan(words=[word]).resolve(word)
    except ArtifactsError as error:
        near = difflib.get_close_matches(word, (*ORDER, "build"), n=1)
        if not near or error.fix.startswith("did you mean"):
            return error
        build = "doit TARGET builds; see the targets with: doit list"
        return RecipeError(error.fact, build if near == ["build"] else f"did you mean the command 'doit {near[0]}'?")
    return RecipeError(f"'{word}' cannot be run by itself", "see the targets with: doit list --all")

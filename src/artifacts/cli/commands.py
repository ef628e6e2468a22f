"""doit's own commands of this project: run, list, why, plan, verify, gc. pyproject.toml tells doit where they are."""

from __future__ import annotations

import contextlib
import sys
from abc import abstractmethod
from typing import Any

from doit import doit_cmd
from doit.cmd_list import List as DoitList
from doit.cmd_run import Run as DoitRun
from doit.exceptions import InvalidCommand

from artifacts.cli.command_line import Options, in_two_lines
from artifacts.cli.interrupts import interrupt_on_signals
from artifacts.cli.report import fall_silent, size_text
from artifacts.cli.tasks import Session
from artifacts.errors import ArtifactsError, RecipeError, StoreError, printable
from artifacts.plan.plan import Job, Plan, is_pattern, load_plan
from artifacts.run.dry_run import forecast
from artifacts.run.lookup import Lookup
from artifacts.store.journal import Journal

INTERRUPTED = 130
MOST_JOBS = 1000

PLANNED = {
    "left": "leave",
    "found": "find",
    "fetched": "fetch",
    "restored": "restore",
    "built": "build",
    "built?": "build?",
}

IN_WORDS = {
    "built?": "will be built, or left if its inputs come out as they were",
    "missing": "is missing",
    "not tried": "will not be tried",
}


class Run(Options, DoitRun):  # type: ignore[misc]  # doit has no types
    """`doit run`, and `doit` alone: workers are threads, and an unknown target is answered with the nearest one."""

    name = "run"
    # What is current is not built again, and what a target needs comes before it: neither is to be had otherwise.
    cmd_options = tuple(option for option in DoitRun.cmd_options if option["name"] not in ("always", "single"))

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the tasks. Each step has a process of its own, so a thread that waits for it is all a worker is."""
        params.update(par_type="thread", always=False, single=False)
        ended_by = interrupt_on_signals()
        with in_two_lines():
            try:
                return self._run(params, args)
            except InvalidCommand as error:
                if error.not_found is None:
                    raise
                raise _unknown(error.not_found) from None
            except KeyboardInterrupt:
                with contextlib.suppress(OSError):  # a terminal that hung up
                    print("interrupted; what was finished is kept", file=sys.stderr)
                return ended_by[0] if ended_by else INTERRUPTED

    def _run(self, params: Any, args: list[str]) -> int:
        if doit_cmd._CMDLINE_VARS:
            word = "=".join(next(iter(doit_cmd._CMDLINE_VARS.items())))
            raise RecipeError(f"no target is called '{word}'", "parameters are set in the recipe, not here")
        if params["num_process"] < 0:
            raise RecipeError(f"-n {params['num_process']}: no number of jobs", "give 1 or more, as in: doit -n 2")
        if params["num_process"] > MOST_JOBS:
            raise RecipeError(
                f"-n {params['num_process']}: more than {MOST_JOBS} jobs at once", f"give at most {MOST_JOBS}"
            )
        Session.words = args
        result: int = super().execute(params, _spelt_out(args) if any(map(is_pattern, args)) else args)
        return result


class List(Options, DoitList):  # type: ignore[misc]  # as above
    """`doit list`, which shows the default recipe's targets and of the other recipes the names."""

    name = "list"
    cmd_options = tuple(option for option in DoitList.cmd_options if option["name"] != "status")  # `plan` knows it

    def execute(self, params: Any, args: list[str]) -> int:
        """List targets."""
        Session.words = None if params["subtasks"] else args
        params["status"] = False
        try:
            with in_two_lines():
                _check_template(params["template"])
                result: int = super().execute(params, _spelt_out(args) if args else [])
                sys.stdout.flush()
        except BrokenPipeError:
            fall_silent()
            return 0
        return result


class _PlanCommand(Options):
    """A command that needs the plan and no tasks."""

    doc_usage = "[TARGET ...]"

    def execute(self, _options: Any, args: list[str]) -> int:
        """Load the plan, and say what is wrong in two lines."""
        try:
            with in_two_lines():
                return self.work(self.plan(args), args)
        except BrokenPipeError:
            fall_silent()
            return 0
        except KeyboardInterrupt:
            return INTERRUPTED

    def plan(self, words: list[str]) -> Plan:
        """The plan, with the recipes that the words speak of."""
        return load_plan(words=words)

    @abstractmethod
    def work(self, plan: Plan, words: list[str]) -> int:
        """What the command does. Returns the exit code."""


class Why(_PlanCommand):
    """`doit why`."""

    name = "why"
    doc_purpose = "say what decides the next build of a target, or decided the last"

    def work(self, plan: Plan, words: list[str]) -> int:
        """Explain each target named; of the default recipe, all that a run would touch."""
        lookup = Lookup(plan)
        journal = Journal(lookup.cache / "journal.jsonl")
        asked = {name for word in words if word not in plan.pipeline.recipes for name in plan.meant(word)}
        rows = forecast(plan, words)
        for row in rows:
            if asked and row.target not in asked:
                continue
            if row.what != "left":
                print(f"{row.target} {IN_WORDS.get(row.what, f'will be {row.what}')}{':' if row.why else ''}")
                _print_reasons(row.why)
            elif asked:
                print(f"{row.target} is up to date")
                entry = journal.last(row.target, "built", "restored")
                if entry is not None:
                    action = lookup.store.action(entry.key)
                    on = f", made on {action.processor}" if action and action.processor else ""
                    print(printable(f"  last {entry.outcome} {entry.at}{on}:"))
                    _print_reasons(entry.why)
        if not asked and all(row.what == "left" for row in rows):
            print(f"{len(rows)} targets, all up to date")
        return 0


class PlanRun(_PlanCommand):
    """`doit plan`."""

    name = "plan"
    doc_purpose = "show what a run would build, restore or leave, and change nothing"

    def work(self, plan: Plan, words: list[str]) -> int:
        """Walk through the whole plan."""
        rows = forecast(plan, words)
        width = max((len(row.target) for row in rows), default=0)
        for row in rows:
            known = ""
            if row.last is not None and row.what.startswith("built"):
                known = f"{row.last.seconds:8.1f} s  {size_text(row.last.peak_bytes):>8}"
            verb, reason = PLANNED.get(row.what, row.what), printable(row.why[0]) if row.why else ""
            print(f"{verb:<10}{row.target:<{width}}  {known:<20}  {reason}".rstrip())
        counts = {what: sum(row.what == what for row in rows) for what in dict.fromkeys(row.what for row in rows)}
        last = [row.last for row in rows if row.last is not None and row.what.startswith("built")]
        print(
            ", ".join(
                f"{count} to {PLANNED[what]}" if what in PLANNED else f"{count} {what}"
                for what, count in counts.items()
            )
        )
        if last:
            seconds, peak = sum(entry.seconds for entry in last), max(entry.peak_bytes for entry in last)
            print(f"by earlier runs at most {seconds:.0f} s one by one, peak {size_text(peak)}")
        return 0


class Verify(_PlanCommand):
    """`doit verify`."""

    name = "verify"
    doc_purpose = "read every byte against the manifests; what is damaged is built again next time"

    def plan(self, words: list[str]) -> Plan:
        """As named; of all recipes if none is."""
        return load_plan(words=words or None)

    def work(self, plan: Plan, words: list[str]) -> int:
        """Read targets, of all recipes if none is named. 1 if anything is damaged."""
        from artifacts.run.maintenance import verify  # here, and below: `doit` and `doit list` start sooner without

        findings = list(verify(plan, words or list(plan.pipeline.recipes)))
        damaged = [finding for finding in findings if finding.damage is not None]
        for finding in damaged:
            print(StoreError(f"{finding.target}: {finding.damage}", finding.fix), file=sys.stderr)
        unlocked = [finding.target for finding in findings if finding.is_unlocked]
        for target in unlocked:
            print(f"{target}: is not locked yet: the first step that reads it locks it to its bytes")
        intact = len(findings) - len(damaged) - len(unlocked)
        read = size_text(sum(finding.bytes for finding in findings))
        known = f", {len(unlocked)} not locked yet" if unlocked else ""
        print(f"{intact} of {len(findings)} targets intact{known}, {read} read")
        return 1 if damaged else 0


class Gc(_PlanCommand):
    """`doit gc`."""

    name = "gc"
    doc_purpose = "drop from the cache what no recipe needs"
    doc_usage = ""

    def plan(self, words: list[str]) -> Plan:
        """With all recipes: what one of them needs is kept."""
        return load_plan()

    def work(self, plan: Plan, words: list[str]) -> int:
        """Clean up."""
        if words:
            raise RecipeError("gc takes no target", "run it alone: it keeps what any recipe needs")
        from artifacts.run.maintenance import drop_unneeded

        dropped = drop_unneeded(plan)
        what = f"{dropped.folders} artifacts and downloads, {dropped.actions} records"
        print(f"dropped {what}, {size_text(dropped.bytes)}")
        return 0


def _spelt_out(words: list[str]) -> list[str]:
    """The words, with a pattern's targets in its place. Raises `RecipeError` for one that means nothing."""
    plan = load_plan(words=words)
    names = []
    for word in words:
        meant = plan.meant(word)
        own = "" if ":" in word else f"{plan.pipeline.default}:"
        # Of a source, doit has no task without the recipe's name.
        short = [name.removeprefix(own) if isinstance(plan.jobs[name], Job) else name for name in meant]
        names += short if is_pattern(word) else [word]
    return names


def _check_template(template: str | None) -> None:
    try:
        (template or "").format(name="", doc="")
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError, MemoryError) as error:
        fact = f"--template '{template}': {type(error).__name__}: {error}"
        raise RecipeError(fact, "use {name} and {doc}, as in: doit list --template '{name}: {doc}'") from None


def _unknown(word: str) -> ArtifactsError:
    try:
        load_plan(words=[word]).resolve(word)
    except ArtifactsError as error:
        return error
    return RecipeError(f"'{word}' cannot be run by itself", "see the targets with: doit list --all")


def _print_reasons(why: list[str]) -> None:
    for reason in why:
        print(f"  {printable(reason)}")

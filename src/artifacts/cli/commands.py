"""Commands that doit does not have: why, plan, verify, gc, outdated, schema. pyproject.toml names them."""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any

from artifacts.cli.doit_commands import INTERRUPTED
from artifacts.cli.options import Options, user_errors
from artifacts.cli.tables import counted, size_text
from artifacts.errors import RecipeError, StoreError, printable
from artifacts.files.atomic import write_atomically
from artifacts.plan.explain import NEVER_BUILT, failed_try
from artifacts.plan.plan import Job, Plan, load_plan
from artifacts.recipe.recipe import NamedSource
from artifacts.run.dry_run import FAILING, PlannedOutcome, dry_run
from artifacts.run.failure import written_log
from artifacts.run.lookup import Lookup
from artifacts.sources.pins import locked_commit, pinned_digest
from artifacts.store.journal import Journal, Status

SCHEMA_FILE = Path("recipe.schema.json")

# In the table of `doit plan`.
VERBS = {
    Status.UNCHANGED: "leave",
    Status.FOUND: "find",
    Status.FETCHED: "fetch",
    Status.RESTORED: "restore",
    Status.BUILT: "build",
    Status.MAYBE_BUILT: "build?",
    Status.SKIPPED: "skip",
}
# In the sentences of `doit why`.
SENTENCES = {
    Status.MAYBE_BUILT: "will be built, unless the bytes of its inputs come out as they were",
    Status.MISSING: "is missing",
    Status.CHANGED: "has other bytes than its pin",
    Status.REFUSED: "is refused",
    Status.NOT_TRIED: "will not be tried",
}


class PlanCommand(Options):
    """A command that needs the plan, and none of doit's tasks."""

    doc_usage = "[TARGET ...]"

    def execute(self, _options: Any, args: list[str]) -> int:
        """Load the plan, and say what is wrong in two lines."""
        try:
            with user_errors():
                return self.work(self.plan(args), args)
        except KeyboardInterrupt:
            return INTERRUPTED

    def plan(self, words: list[str]) -> Plan:
        """Return the plan of the recipes that the words refer to."""
        return load_plan(words=words)

    @abstractmethod
    def work(self, plan: Plan, words: list[str]) -> int:
        """Do what the command is for. Returns the exit code."""


class Why(PlanCommand):
    """`doit why`."""

    name = "why"
    doc_purpose = "explain what causes the next build of a target, or caused the last"

    def work(self, plan: Plan, words: list[str]) -> int:
        """Explain each target named; of the default recipe, all that a run would touch."""
        lookup = Lookup(plan)
        journal = Journal(lookup.cache / "journal.jsonl")
        asked = {name for word in words if word not in plan.pipeline.recipes for name in plan.meant(word)}
        rows = dry_run(plan, words)
        newest = journal.newest() if any(row.status != Status.UNCHANGED for row in rows) else {}
        for row in rows:
            if asked and row.target not in asked:
                continue
            if row.status != Status.UNCHANGED:
                sentence = SENTENCES.get(row.status, f"will be {row.status}")
                print(f"{row.target} {sentence}{':' if row.why else ''}")
                _print_reasons(row.why)
                job, entry = plan.jobs[row.target], newest.get(row.target)
                if isinstance(job, Job) and entry is not None and entry.outcome == Status.FAILED:
                    _print_reasons([failed_try(entry, written_log(lookup.log_of(job)))])
            elif asked:
                print(f"{row.target} is up to date")
                entry = journal.last(row.target, Status.BUILT, Status.RESTORED)
                if entry is not None:
                    action = lookup.store.action(entry.key)
                    on = f", on {action.processor}" if action and action.processor else ""
                    print(printable(f"  last {entry.outcome} {entry.local_time}{on}:"))
                    _print_reasons(["it had not been built before" if why == NEVER_BUILT else why for why in entry.why])
        if not asked and all(row.status == Status.UNCHANGED for row in rows):
            print(f"{len(rows)} targets, all up to date")
        return 0


class DryRun(PlanCommand):
    """`doit plan`."""

    name = "plan"
    doc_purpose = "show what a run would build, restore or leave; change nothing"

    def work(self, plan: Plan, words: list[str]) -> int:
        """Walk through the whole plan."""
        rows = dry_run(plan, words)
        width = max((len(row.target) for row in rows), default=0)
        for row in rows:
            known = ""
            if row.last is not None and row.status in (Status.BUILT, Status.MAYBE_BUILT):
                known = f"{row.last.seconds:8.1f} s  {size_text(row.last.peak_bytes):>8}"
            verb = VERBS.get(row.status, row.status)
            print(f"{verb:<10}{row.target:<{width}}  {known:<20}  {printable(_reason(row))}".rstrip())
        counts = Counter(row.status for row in rows)
        last = [row.last for row in rows if row.last is not None and row.status in (Status.BUILT, Status.MAYBE_BUILT)]
        print(
            ", ".join(
                f"{count} to {VERBS[status]}" if status in VERBS else f"{count} {status}"
                for status, count in counts.items()
            )
        )
        if last:
            seconds, peak = sum(entry.seconds for entry in last), max(entry.peak_bytes for entry in last)
            print(f"by earlier runs at most {seconds:.0f} s one by one, peak {size_text(peak)}")
        for row in rows:
            if row.status in FAILING:
                print(printable(row.why[0]))
                _print_reasons(row.why[1:])
        return 0


class Verify(PlanCommand):
    """`doit verify`."""

    name = "verify"
    doc_purpose = "compare every byte with the manifests; the next run builds what is damaged again"

    def plan(self, words: list[str]) -> Plan:
        """As named; of all recipes if none is."""
        return load_plan(words=words or None)

    def work(self, plan: Plan, words: list[str]) -> int:
        """Read targets, of all recipes if none is named. 1 if anything is damaged."""
        from artifacts.run.maintenance import verify  # here, and below: `doit` and `doit list` start sooner without

        results = list(verify(plan, words or list(plan.jobs)))
        damaged = [result for result in results if result.damage is not None]
        for result in damaged:
            print(StoreError(f"{result.target}: {result.damage}", result.fix), file=sys.stderr)
        unpinned = [result.target for result in results if result.is_unpinned]
        for target in unpinned:
            print(f"{target}: is not pinned yet; the first step that reads it pins it")
        intact = len(results) - len(damaged) - len(unpinned)
        read = size_text(sum(result.bytes for result in results))
        known = f", {len(unpinned)} not pinned yet" if unpinned else ""
        print(f"{intact} of {len(results)} targets intact{known}, {read} read")
        return 1 if damaged else 0


class Gc(PlanCommand):
    """`doit gc`."""

    name = "gc"
    doc_purpose = "remove from the cache what no recipe needs"
    doc_usage = ""

    def plan(self, words: list[str]) -> Plan:
        """With all recipes: what one of them needs is kept."""
        return load_plan()

    def work(self, plan: Plan, words: list[str]) -> int:
        """Clean up."""
        if words:
            raise RecipeError("gc takes no target", "run it alone: it keeps what any recipe needs")
        from artifacts.run.maintenance import collect_garbage

        removed = collect_garbage(plan)
        folders = counted(removed.folders, "artifact or download", "artifacts and downloads")
        print(f"removed {folders}, {counted(removed.actions, 'record')}, {size_text(removed.bytes)}")
        return 0


class Outdated(PlanCommand):
    """`doit outdated`."""

    name = "outdated"
    doc_purpose = "say which sources of the hub have moved on since they were pinned; fetch nothing"

    def plan(self, words: list[str]) -> Plan:
        """As named; of all recipes if none is."""
        return load_plan(words=words or None)

    def work(self, plan: Plan, words: list[str]) -> int:
        """Ask the hub for what each revision names now."""
        from artifacts.sources.hub import version_now

        asked = failed = 0
        moved: list[str] = []
        for name in plan.selected(words or list(plan.jobs)):
            source = plan.jobs[name]
            if not isinstance(source, NamedSource) or source.declared.hf is None:
                continue
            asked += 1
            pin, then = pinned_digest(source)[0], locked_commit(source)
            try:
                now, sha256 = version_now(source.declared.hf, source.declared.file or "")
            except StoreError as error:
                failed += 1
                print(StoreError(f"{source.label}: {error.fact}", error.fix), file=sys.stderr)
                continue
            if pin is None:
                state = "is not pinned yet"
            elif sha256 == pin or (sha256 is None and now is not None and now == then):
                state = "is up to date"
            elif sha256 is None and then is None:
                state = f"is pinned, and the hub does not say whether its bytes changed; it is at {now} now"
            else:
                moved.append(name)
                state = (
                    f"has moved: {then[:12] if then else 'a commit that was not noted'} -> {(now or 'unknown')[:12]}"
                )
            print(printable(f"{name} ({source.address}) {state}"))
        if not asked:
            print("none of these is a source of the hub" if words else "no recipe has a source of the hub")
        else:
            has = f"{len(moved)} {'has' if len(moved) == 1 else 'have'} changed" if moved else "none has changed"
            print(f"{counted(asked, 'source')} of the hub, {has}{f', {failed} not known' if failed else ''}")
        if moved:
            print(f"to build from what the hub has now: doit pin {' '.join(moved)}")
        return 1 if failed else 0


class Schema(Options):
    """`doit schema`."""

    name = "schema"
    doc_purpose = f"write {SCHEMA_FILE}, by which editors complete and check recipes"
    doc_usage = ""

    def execute(self, _options: Any, args: list[str]) -> int:
        """Write the file."""
        from artifacts.plan.schema import recipe_schema
        from artifacts.plan.step_files import known_steps

        with user_errors():
            if args:
                raise RecipeError("schema takes no target", "run it alone: it describes every step")
            text = json.dumps(recipe_schema(known_steps()), indent=1, ensure_ascii=False) + "\n"
            write_atomically(SCHEMA_FILE, text.encode())
        print(f"wrote {SCHEMA_FILE}; name it in the first line of a recipe:")
        print(f"# yaml-language-server: $schema=../{SCHEMA_FILE}")
        return 0


def _print_reasons(why: list[str]) -> None:
    for reason in why:
        print(f"  {printable(reason)}")


def _reason(row: PlannedOutcome) -> str:
    """Return the first reason for a row of `doit plan`. The errors of sources follow below its table."""
    if row.status in FAILING:
        return f"{row.target} {SENTENCES[row.status]}"
    return f"needs {', '.join(row.needs)}" if row.needs else next(iter(row.why), "")

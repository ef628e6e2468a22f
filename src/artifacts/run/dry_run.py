"""Dry run: what a run would do, and why. It goes through the whole plan and builds nothing."""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.errors import StoreError
from artifacts.plan.explain import NEVER_BUILT, reasons
from artifacts.plan.plan import Job, Plan
from artifacts.recipe.recipe import NamedSource
from artifacts.run.lookup import Lookup, ResolvedTarget
from artifacts.sources.find import MissingSourceError, look_for_source
from artifacts.sources.pins import ChangedSourceError, pinned_digest
from artifacts.store.journal import Entry, Journal, Status

# What a run fails on, at a source.
FAILING = (Status.MISSING, Status.CHANGED, Status.REFUSED)
UNLESS_CHANGED = "unchanged if those bytes stay the same"


@dataclass(frozen=True)
class PlannedOutcome:
    """Status that a target would have after a run, the reasons, and the journal's entry of its last build, if any.

    The reasons for a source that a run fails on, and for what needs it, are the fact and the fix of the error. `needs`
    names the sources for whose lack a target is skipped or not tried.
    """

    target: str
    status: Status
    why: list[str]
    last: Entry | None
    needs: tuple[str, ...] = ()


def dry_run(plan: Plan, words: list[str]) -> list[PlannedOutcome]:
    """Return what `doit <words>` would do, target by target, in building order."""
    lookup = Lookup(plan)
    journal = Journal(lookup.cache / "journal.jsonl")
    last_builds = {
        entry.target: entry for entry in journal.read() if entry.outcome == Status.BUILT and entry.target in plan.jobs
    }
    outcomes: dict[str, PlannedOutcome] = {}
    for name in plan.selected(words):
        job = plan.jobs[name]
        status, why = _source(lookup, job) if isinstance(job, NamedSource) else _job(lookup, job, outcomes)
        needs = _lacking(job, status, outcomes) if isinstance(job, Job) else ()
        outcomes[name] = PlannedOutcome(name, status, why, last_builds.get(name), needs)
    return list(outcomes.values())


def expected_seconds(plan: Plan, words: list[str]) -> dict[str, float]:
    """Return the seconds of the last build of each target that `doit <words>` would or may build, where it is known."""
    rows = [row for row in dry_run(plan, words) if row.status in (Status.BUILT, Status.MAYBE_BUILT)]
    return {row.target: row.last.seconds for row in rows if row.last is not None}


def _source(lookup: Lookup, job: NamedSource) -> tuple[Status, list[str]]:
    if job.absence is not None:
        return Status.SKIPPED, [job.absence]
    try:
        if look_for_source(job, lookup.store.memory, lookup.downloads) is not None:
            return (Status.UNCHANGED if lookup.current(job.full_name) is not None else Status.FOUND), []
    except StoreError as error:
        kinds = {MissingSourceError: Status.MISSING, ChangedSourceError: Status.CHANGED}
        return kinds.get(type(error), Status.REFUSED), [error.fact, f"fix: {error.fix}"]
    pin, _ = pinned_digest(job)
    if job.declared.is_local:
        return Status.FOUND, ["it is not pinned yet"]
    if pin is not None:
        lookup.resolved[job.full_name] = ResolvedTarget(lookup.downloads / pin, pin)
    return Status.FETCHED, []


def _job(lookup: Lookup, job: Job, outcomes: dict[str, PlannedOutcome]) -> tuple[Status, list[str]]:
    inputs = [outcomes[source] for source in job.inputs.values()]
    for ends, status in (((Status.SKIPPED,), Status.SKIPPED), ((*FAILING, Status.NOT_TRIED), Status.NOT_TRIED)):
        lacking = [row for row in inputs if row.status in ends]
        if lacking:
            return status, list(dict.fromkeys(cause for row in lacking for cause in row.why))
    identity = lookup.identity(job)
    if identity is None:
        return _job_with_unbuilt_inputs(lookup, job, outcomes)
    state = lookup.artifact(job, identity)
    if state.action is None or state.damage is not None:
        return Status.BUILT, lookup.why_built(job, identity, state.damage)
    lookup.resolve_to(job.full_name, state.action)
    if state.shown is None:
        return Status.RESTORED, lookup.why_restored(job, identity)
    return Status.UNCHANGED, []


def _lacking(job: Job, status: Status, outcomes: dict[str, PlannedOutcome]) -> tuple[str, ...]:
    if status not in (Status.SKIPPED, Status.NOT_TRIED):
        return ()
    causes = (Status.SKIPPED,) if status == Status.SKIPPED else (*FAILING, Status.NOT_TRIED)
    inputs = [row for source in job.inputs.values() if (row := outcomes[source]).status in causes]
    return tuple(dict.fromkeys(name for row in inputs for name in row.needs or (row.target,)))


def _job_with_unbuilt_inputs(lookup: Lookup, job: Job, outcomes: dict[str, PlannedOutcome]) -> tuple[Status, list[str]]:
    """Predict the outcome of a job some of whose inputs have no content yet, by the contents that they had last."""
    first = []
    for source in lookup.unresolved_inputs(job):
        status = outcomes[source].status
        first.append(f"{source} {'may be' if status == Status.MAYBE_BUILT else 'is'} {status.rstrip('?')} first")
    last = lookup.last_identity(job)
    if last is None:
        return Status.BUILT, [NEVER_BUILT, *first]
    contents = {
        source: lookup.resolved[source].content if source in lookup.resolved else last.inputs.get(name, "")
        for name, source in job.inputs.items()
    }
    certain = reasons(job, last, job.identity(contents, lookup.store.memory))
    if certain:
        return Status.BUILT, [*certain, *first]
    damage = lookup.artifact(job, last).damage
    if damage is not None:
        return Status.BUILT, [f"its artifact was damaged: {damage}", *first]
    return Status.MAYBE_BUILT, [f"{', '.join(first)}; {UNLESS_CHANGED}"]

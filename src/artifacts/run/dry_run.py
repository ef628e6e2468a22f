"""Dry run: what a run would do, and why. It walks the whole plan and builds nothing."""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.errors import ArtifactsError
from artifacts.plan.explain import NEVER_BUILT, reasons
from artifacts.plan.plan import Job, Plan
from artifacts.recipe.recipe import NamedSource
from artifacts.run.lookup import Lookup, ResolvedTarget
from artifacts.sources.find import look_for_source
from artifacts.sources.pins import pinned_digest
from artifacts.store.journal import Entry, Journal, Status

MAY_STOP = "it may stop here if the bytes come out equal"


@dataclass(frozen=True)
class PlannedOutcome:
    """Status that a target would have after a run, the reasons, and the journal's entry of its last build, if any."""

    target: str
    status: Status
    why: list[str]
    last: Entry | None


def dry_run(plan: Plan, words: list[str]) -> list[PlannedOutcome]:
    """Return what `doit <words>` would do, target by target, in building order."""
    lookup = Lookup(plan)
    journal = Journal(lookup.cache / "journal.jsonl")
    built = {
        entry.target: entry for entry in journal.read() if entry.outcome == Status.BUILT and entry.target in plan.jobs
    }
    found: dict[str, PlannedOutcome] = {}
    for name in plan.selected(words):
        job = plan.jobs[name]
        status, why = _source(lookup, job) if isinstance(job, NamedSource) else _job(lookup, job, found)
        found[name] = PlannedOutcome(name, status, why, built.get(name))
    return list(found.values())


def expected_seconds(plan: Plan, words: list[str]) -> dict[str, float]:
    """Return the seconds of the last build of each target that `doit <words>` would or may build, where it is known."""
    rows = [row for row in dry_run(plan, words) if row.status in (Status.BUILT, Status.MAYBE_BUILT)]
    return {row.target: row.last.seconds for row in rows if row.last is not None}


def _source(lookup: Lookup, job: NamedSource) -> tuple[Status, list[str]]:
    try:
        if look_for_source(job, lookup.store.memory, lookup.downloads) is not None:
            return (Status.UNCHANGED if lookup.current(job.full_name) is not None else Status.FOUND), []
    except ArtifactsError as error:
        return Status.MISSING, [error.fact]
    pin, _ = pinned_digest(job)
    if job.declared.is_local:
        return Status.FOUND, ["it is not locked yet"]
    if pin is not None:
        lookup.resolved[job.full_name] = ResolvedTarget(lookup.downloads / pin, pin)
    return Status.FETCHED, []


def _job(lookup: Lookup, job: Job, found: dict[str, PlannedOutcome]) -> tuple[Status, list[str]]:
    # Inputs come first in the walk: one that is not known now is not current, and need not be looked at again.
    if all(source in lookup.resolved for source in job.inputs.values()) and lookup.current(job.full_name) is not None:
        return Status.UNCHANGED, []
    lacking = [source for source in job.inputs.values() if found[source].status in (Status.MISSING, Status.NOT_TRIED)]
    if lacking:
        return Status.NOT_TRIED, list(dict.fromkeys(cause for source in lacking for cause in found[source].why))
    identity = lookup.identity(job)
    if identity is None:
        return _job_that_waits(lookup, job, found)
    action, damage = lookup.kept(identity.key)
    if action is not None and damage is None:
        lookup.resolved[job.full_name] = ResolvedTarget(lookup.store.files(action.content), action.content)
        return Status.RESTORED, lookup.why_restored(job, identity)
    return Status.BUILT, lookup.why_built(job, identity, damage)


def _job_that_waits(lookup: Lookup, job: Job, found: dict[str, PlannedOutcome]) -> tuple[Status, list[str]]:
    """Judge a job some of whose inputs have no content yet: it is built if their last contents would have it built."""
    waiting = [source for source in job.inputs.values() if source not in lookup.resolved]
    first = []
    for source in waiting:
        status = found[source].status
        first.append(f"{source} {'may be' if status == Status.MAYBE_BUILT else 'is'} {status.rstrip('?')} first")
    last = lookup.last_identity(job)
    if last is None:
        return Status.BUILT, [NEVER_BUILT, *first]
    contents = {
        source: lookup.resolved[source].content if source in lookup.resolved else last.inputs.get(given, "")
        for given, source in job.inputs.items()
    }
    certain = reasons(job, last, job.identity(contents, lookup.store.memory))
    if certain:
        return Status.BUILT, [*certain, *first]
    _, damage = lookup.kept(last.key)
    if damage is not None:
        return Status.BUILT, [f"its artifact was damaged: {damage}", *first]
    return Status.MAYBE_BUILT, [f"{', '.join(first)}; {MAY_STOP}"]

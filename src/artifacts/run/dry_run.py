"""What a run would do, and why: a walk through the whole plan that builds nothing."""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.digest import digest_json
from artifacts.errors import ArtifactsError
from artifacts.plan.explain import reasons
from artifacts.plan.plan import Job, Plan, SourceJob
from artifacts.run.lookup import Known, Lookup
from artifacts.sources.find import look_for_source
from artifacts.sources.pins import pinned_digest
from artifacts.store.journal import Entry, Journal

MAY_STOP = "it may stop here if the bytes come out equal"


@dataclass(frozen=True)
class Forecast:
    """What would happen to a target: left, found, fetched, restored, built, `built?` where that depends on bytes that
    are not made yet; missing (a source), or not tried for want of one. `last` is the last build, if there was one."""

    target: str
    what: str
    why: list[str]
    last: Entry | None


def forecast(plan: Plan, words: list[str]) -> list[Forecast]:
    """What `doit <words>` would do, target by target, in building order."""
    there = Lookup(plan)
    journal = Journal(there.cache / "journal.jsonl")
    built = {entry.target: entry for entry in journal.read() if entry.outcome == "built" and entry.target in plan.jobs}
    found: dict[str, Forecast] = {}
    for name in plan.selected(words):
        job = plan.jobs[name]
        what, why = _source(there, job) if isinstance(job, SourceJob) else _job(there, job, found)
        found[name] = Forecast(name, what, why, built.get(name))
    return list(found.values())


def _source(there: Lookup, job: SourceJob) -> tuple[str, list[str]]:
    try:
        if look_for_source(job.loaded, job.name, there.store.memory, there.downloads) is not None:
            return ("left" if there.current(job.full_name) is not None else "found"), []
    except ArtifactsError as error:
        return "missing", [error.fact]
    source = job.loaded.recipe.sources[job.name]
    pin, _ = pinned_digest(job.loaded, job.name)
    if source.is_local:
        return "found", ["it is not locked yet"]
    if pin is not None:
        there.known[job.full_name] = Known(there.downloads / pin, pin)
    return "fetched", []


def _job(there: Lookup, job: Job, found: dict[str, Forecast]) -> tuple[str, list[str]]:
    # Inputs come first in the walk: one that is not known now is not current, and need not be looked at again.
    if all(source in there.known for source in job.inputs.values()) and there.current(job.full_name) is not None:
        return "left", []
    lacking = [source for source in job.inputs.values() if found[source].what in ("missing", "not tried")]
    if lacking:
        return "not tried", list(dict.fromkeys(cause for source in lacking for cause in found[source].why))
    identity = there.identity(job)
    if identity is None:
        return _job_that_waits(there, job, found)
    action, damage = there.kept(digest_json(identity))
    if action is not None and damage is None:
        there.known[job.full_name] = Known(there.store.files(action.content), action.content)
        return "restored", there.why_restored(job, identity)
    return "built", there.why_built(job, identity, damage)


def _job_that_waits(there: Lookup, job: Job, found: dict[str, Forecast]) -> tuple[str, list[str]]:
    """A job with inputs whose content is not known yet. It is built for certain if it would be with their last one."""
    waiting = [source for source in job.inputs.values() if source not in there.known]
    first = [f"{source} {'may be' if found[source].what == 'built?' else 'is'} {found[source].what.rstrip('?')} first"
             for source in waiting]  # fmt: skip
    last = there.last_identity(job)
    if last is None:
        return "built", ["it was never built", *first]
    contents = {
        source: there.known[source].content if source in there.known else last["inputs"].get(given, "")
        for given, source in job.inputs.items()
    }
    certain = reasons(job, last, job.identity(contents, there.store.memory))
    if certain:
        return "built", [*certain, *first]
    _, damage = there.kept(digest_json(last))
    if damage is not None:
        return "built", [f"its artifact was damaged: {damage}", *first]
    return "built?", [f"{', '.join(first)}; {MAY_STOP}"]

"""Look at sources, artifacts and layouts, and tell which targets are current. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import ArtifactsError
from artifacts.plan.explain import NEVER_BUILT, reasons
from artifacts.plan.plan import Job, Plan
from artifacts.recipe.recipe import NamedSource
from artifacts.run.publish import is_published
from artifacts.sources.find import Found, look_for_source
from artifacts.store.records import Action, Identity, Manifest
from artifacts.store.store import Store
from artifacts.store.target_link import TargetLink


@dataclass(frozen=True)
class ResolvedTarget:
    """Path and content digest of a resolved target."""

    path: Path
    content: str


class Lookup:
    """State of a plan's targets. `resolved` holds those that are current or were made, by full name."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cache = Path(plan.pipeline.cache)
        self.dist = Path(plan.pipeline.dist)
        self.downloads = self.cache / "downloads"
        self.store = Store(self.cache)
        self.resolved: dict[str, ResolvedTarget] = {}

    def link_of(self, full_name: str) -> TargetLink:
        """Return the stable path of a target."""
        recipe, _, name = full_name.partition(":")
        return TargetLink(self.cache, recipe, name)

    def layout_folder(self, job: Job) -> Path:
        """Folder of a layout under `dist/`."""
        return self.dist / job.loaded.name / job.name

    def source(self, job: NamedSource) -> Found | None:
        """A source that is there and in order, else None."""
        try:
            found = look_for_source(job, self.store.memory, self.downloads)
        except ArtifactsError:
            return None  # who makes the target meets the same error, and reports it
        if found is not None:
            self.resolved[job.full_name] = ResolvedTarget(found.path, found.content)
        return found

    def identity(self, job: Job) -> Identity | None:
        """A job's identity, once the content of each of its inputs is known."""
        if any(source not in self.resolved for source in job.inputs.values()):
            return None
        contents = {source: self.resolved[source].content for source in job.inputs.values()}
        return job.identity(contents, self.store.memory)

    def last_identity(self, job: Job) -> Identity | None:
        """The identity that the target was last built or restored by."""
        key = self.link_of(job.full_name).key
        action = self.store.action(key) if key else None
        return action.identity if action else None

    def why_restored(self, job: Job, identity: Identity) -> list[str]:
        """Why a target that the store has is not what its path shows."""
        last = self.last_identity(job)
        return (reasons(job, last, identity) if last else []) or ["its path or its layout was not in place"]

    def why_built(self, job: Job, identity: Identity, damage: str | None) -> list[str]:
        """Why a target's step has to run."""
        if damage is not None:
            return [f"its artifact was damaged: {damage}"]
        last = self.last_identity(job)
        if last is not None:
            return reasons(job, last, identity)
        never = self.link_of(job.full_name).key is None
        return [NEVER_BUILT if never else "the store's record of its last build is lost or damaged"]

    def kept(self, key: str) -> tuple[Action | None, str | None]:
        """What the store has for a key, and what is wrong with it."""
        action = self.store.action(key)
        return action, self.store.damage(action.content) if action else None

    def shown(self, job: Job, key: str, action: Action) -> Manifest | None:
        """The manifest of an intact artifact, if the target's path (and the layout's folder) show it already."""
        manifest, files = self.store.manifest(action.content), self.store.files(action.content)
        link = self.link_of(job.full_name)
        if manifest is None or link.key != key or not link.shows(files, manifest):
            return None
        if job.is_layout and not is_published(self.store, self.layout_folder(job), manifest):
            return None
        return manifest

    def current(self, full_name: str) -> Manifest | None:
        """The manifest of a target that is as its recipe wants it; None if anything is left to do for it.

        Its inputs are looked at first where they are not known yet.
        """
        unknown = self._unknown_inputs(full_name)
        for name in self.plan.jobs if unknown else ():  # inputs come first there
            if name in unknown and self._current(name) is None:
                return None
        return self._current(full_name)

    def _unknown_inputs(self, full_name: str) -> set[str]:
        """Inputs of a target, and theirs, that are not known yet."""
        unknown: set[str] = set()
        waiting = [full_name]
        while waiting:
            job = self.plan.jobs[waiting.pop()]
            new = {name for name in job.inputs.values() if name not in self.resolved} if isinstance(job, Job) else set()
            waiting += new - unknown
            unknown |= new
        return unknown

    def _current(self, full_name: str) -> Manifest | None:
        job = self.plan.jobs[full_name]
        if isinstance(job, NamedSource):
            found = self.source(job)
            return found.manifest if found and self.link_of(full_name).notes(found.manifest) else None
        identity = self.identity(job)
        if identity is None:
            return None
        key = identity.key
        action, damage = self.kept(key)
        manifest = self.shown(job, key, action) if action is not None and damage is None else None
        if action is not None and manifest is not None:
            self.resolved[full_name] = ResolvedTarget(self.store.files(action.content), action.content)
        return manifest

"""Look up sources, artifacts and layouts, and decide which targets are current. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import ArtifactsError
from artifacts.plan.explain import NEVER_BUILT, reasons
from artifacts.plan.plan import Job, Plan
from artifacts.recipe.recipe import NamedSource
from artifacts.run.publish import is_published
from artifacts.sources.find import ResolvedSource, look_for_source
from artifacts.store.records import Action, Identity, Manifest
from artifacts.store.store import Store
from artifacts.store.target_link import TargetLink


@dataclass(frozen=True)
class ResolvedTarget:
    """Path and content digest of a resolved target."""

    path: Path
    content: str


@dataclass(frozen=True)
class StoredArtifact:
    """What the store has for one identity.

    `action` is the store's record of it. `damage` is in words. `shown` is its manifest if it is intact, and the
    target's path (and the layout's folder) show it.
    """

    action: Action | None = None
    damage: str | None = None
    shown: Manifest | None = None


class Lookup:
    """State of a plan's targets. `resolved` and `actions` have those that are current or were built, by full name."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cache = Path(plan.pipeline.cache)
        self.dist = Path(plan.pipeline.dist)
        self.downloads = self.cache / "downloads"
        self.store = Store(self.cache)
        self.resolved: dict[str, ResolvedTarget] = {}
        self.actions: dict[str, Action] = {}

    def link_of(self, full_name: str) -> TargetLink:
        """Return the stable path of a target."""
        recipe, _, name = full_name.partition(":")
        return TargetLink(self.cache, recipe, name)

    def layout_folder(self, job: Job) -> Path:
        """Return the folder of a layout under `dist/`."""
        return self.dist / job.loaded.name / job.name

    def log_of(self, job: Job) -> Path:
        """Return the file with the output of the target's step when it ran last."""
        return self.cache / "logs" / job.loaded.name / f"{job.name}.log"

    def source(self, job: NamedSource) -> ResolvedSource | None:
        """Return a source that is on this machine and matches its pin, and resolve it; None for any other."""
        try:
            resolved = look_for_source(job, self.store.memory, self.downloads)
        except ArtifactsError:
            return None  # a build of the target raises the same error
        if resolved is not None:
            self.resolved[job.full_name] = ResolvedTarget(resolved.path, resolved.content)
        return resolved

    def resolve_to(self, full_name: str, action: Action) -> None:
        """Note that a target has the artifact of an action."""
        self.resolved[full_name] = ResolvedTarget(self.store.files(action.content), action.content)
        self.actions[full_name] = action

    def unresolved_inputs(self, job: Job) -> list[str]:
        """Return the full names of the inputs whose content is not known yet."""
        return [source for source in job.inputs.values() if source not in self.resolved]

    def identity(self, job: Job) -> Identity | None:
        """Return a job's identity; None as long as the content of an input is not known."""
        if self.unresolved_inputs(job):
            return None
        contents = {source: self.resolved[source].content for source in job.inputs.values()}
        return job.identity(contents, self.store.memory)

    def last_identity(self, job: Job) -> Identity | None:
        """Return the identity that the target was last built or restored by."""
        key = self.link_of(job.full_name).key
        action = self.store.action(key) if key else None
        return action.identity if action else None

    def why_restored(self, job: Job, identity: Identity) -> list[str]:
        """Return why a target's path does not show the artifact that the store has for it."""
        last = self.last_identity(job)
        if last is None and self.link_of(job.full_name).key is None:
            return ["the same artifact is in the store"]
        return (reasons(job, last, identity) if last else []) or ["its path or its layout was not in place"]

    def why_built(self, job: Job, identity: Identity, damage: str | None) -> list[str]:
        """Return why a target's step has to run."""
        if damage is not None:
            return [f"its artifact was damaged: {damage}"]
        last = self.last_identity(job)
        if last is not None:
            return reasons(job, last, identity)
        never = self.link_of(job.full_name).key is None
        return [NEVER_BUILT if never else "the store's record of its last build is lost or damaged"]

    def artifact(self, job: Job, identity: Identity) -> StoredArtifact:
        """Return what the store has for a job by an identity."""
        action = self.store.action(identity.key)
        if action is None:
            return StoredArtifact()
        damage = self.store.damage(action.content)
        return StoredArtifact(action, damage, self._shown(job, identity.key, action) if damage is None else None)

    def _shown(self, job: Job, key: str, action: Action) -> Manifest | None:
        manifest, files = self.store.manifest(action.content), self.store.files(action.content)
        link = self.link_of(job.full_name)
        if manifest is None or link.key != key or not link.shows(files, manifest):
            return None
        if job.is_layout and not is_published(self.store, self.layout_folder(job), manifest):
            return None
        return manifest

    def current(self, full_name: str) -> Manifest | None:
        """Return the manifest of a target if it is current, and resolve it; None if a build has work to do for it.

        Unresolved inputs are looked up first.
        """
        job = self.plan.jobs[full_name]
        if isinstance(job, Job) and self.unresolved_inputs(job):
            for name in self.plan.selected([full_name]):  # inputs come first
                if name != full_name and name not in self.resolved and self._current(name) is None:
                    return None
        return self._current(full_name)

    def _current(self, full_name: str) -> Manifest | None:
        job = self.plan.jobs[full_name]
        if isinstance(job, NamedSource):
            resolved = self.source(job)
            return resolved.manifest if resolved and self.link_of(full_name).has_manifest(resolved.manifest) else None
        identity = self.identity(job)
        state = self.artifact(job, identity) if identity is not None else StoredArtifact()
        if state.action is not None and state.shown is not None:
            self.resolve_to(full_name, state.action)
        return state.shown

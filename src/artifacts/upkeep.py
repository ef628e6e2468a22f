"""Care for the store: reads every byte against the manifests, and drops what no recipe needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.digest import digest_json
from artifacts.lookup import Known, Lookup
from artifacts.plan import Job, Plan, SourceJob
from artifacts.recipe import RESERVED, Source
from artifacts.sources import partial_folder, pinned_digest
from artifacts.store import remove_tree, total_bytes


@dataclass(frozen=True)
class Finding:
    """What reading a target showed: how many bytes were read, and what is wrong, if anything."""

    target: str
    bytes: int
    damage: str | None


def verify(plan: Plan, words: list[str]) -> Iterator[Finding]:
    """Read every byte of what the targets are now, in the store and under `dist/`, and change nothing.

    What is remembered about files is forgotten first, and what is read is remembered: a run after this one finds the
    same damage, however well it was hidden, and repairs it.
    """
    there = Lookup(plan)
    there.store.memory.forget_all()
    for name in plan.selected(words):
        if there.pointer(name).manifest_file.exists():
            job = plan.jobs[name]
            yield _read_source(there, job) if isinstance(job, SourceJob) else _read_artifact(there, job)


def _read_source(there: Lookup, job: SourceJob) -> Finding:
    found = there.source(job)
    if found is None:
        return Finding(job.full_name, 0, "it is missing, or not what is pinned")
    return Finding(job.full_name, total_bytes(found.manifest), None)


def _read_artifact(there: Lookup, job: Job) -> Finding:
    key = there.pointer(job.full_name).key
    action = there.store.action(key) if key else None
    if action is None:
        return Finding(job.full_name, 0, "the store has no record of it")
    damage = there.store.damage(action.content)
    manifest = there.store.manifest(action.content)
    if damage is not None or manifest is None:
        return Finding(job.full_name, 0, damage)
    place = there.place_in_dist(job)
    if job.is_layout and place.is_dir():
        damage = there.store.difference(place, manifest)
        damage = f"under '{place}', {damage}" if damage is not None else None
    return Finding(job.full_name, total_bytes(manifest), damage)


@dataclass(frozen=True)
class Dropped:
    """What a clean-up removed: artifacts and downloads, records of actions, and bytes."""

    folders: int
    actions: int
    bytes: int


def drop_unneeded(plan: Plan) -> Dropped:
    """Remove what no recipe needs: artifacts that no target is now or would be by its recipe, downloads that no source
    is pinned to, and what killed runs left behind. Raises `StoreError` while a build is at work."""
    there = Lookup(plan)
    with there.store.alone():
        keys, pins = _needed(there)
        contents = {action.content for key, action in there.store.actions() if key in keys}
        doomed = [there.store.folder(content) for content in there.store.contents() if content not in contents]
        if there.downloads.is_dir():
            doomed += [path for path in sorted(there.downloads.iterdir()) if path.name not in pins | {"partial"}]
            under_way = {partial_folder(source, there.downloads) for source in _remote_sources(there.plan)}
            doomed += sorted(set(there.downloads.glob("partial/*")) - under_way)
        size = sum(_bytes_below(path) for path in doomed)
        actions = [key for key, _ in there.store.actions() if key not in keys]
        for key in actions:
            there.store.forget(key)
        for path in doomed:
            remove_tree(path)
        size += _clear_leftovers(there)
        _drop_lost_pointers(there)
    return Dropped(len(doomed), len(actions), size)


def _needed(there: Lookup) -> tuple[set[str], set[str]]:
    keys: set[str] = set()
    pins: set[str] = set()
    for name, job in there.plan.jobs.items():
        if isinstance(job, SourceJob):
            there.source(job)
            pin, _ = pinned_digest(job.loaded, job.name)
            pins |= {pin} if pin else set()
            continue
        shown = there.pointer(name).key
        keys |= {shown} if shown else set()
        identity = there.identity(job)
        if identity is not None:
            key = digest_json(identity)
            action = there.store.action(key)
            keys.add(key)
            if action is not None:
                there.known[name] = Known(there.store.files(action.content), action.content)
    return keys, pins


def _remote_sources(plan: Plan) -> Iterator[Source]:
    for job in plan.jobs.values():
        if isinstance(job, SourceJob):
            source = job.loaded.recipe.sources[job.name]
            if source.url is not None or source.hf is not None:
                yield source


def _clear_leftovers(there: Lookup) -> int:
    """Remove what killed runs left: steps at work, and whatever was on its way to its name."""
    ours = [path for path in there.cache.glob("*") if path.name in RESERVED or (path / ".state").is_dir()]
    left = [path for folder in ours for path in folder.glob(".*") if path.name != ".state"]
    left += [*there.cache.glob("staging/*"), *there.cache.glob("*/.state/.*"), *there.dist.glob("*/.*.publishing.*")]
    size = sum(_bytes_below(path) for path in left)
    for path in left:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for lock in there.cache.glob("locks/*"):
        lock.unlink()
    return size


def _drop_lost_pointers(there: Lookup) -> None:
    for path in there.cache.glob("*/.state/*.manifest.json"):
        name = path.name.removesuffix(".manifest.json")
        if f"{path.parent.parent.name}:{name}" not in there.plan.jobs:
            there.pointer(f"{path.parent.parent.name}:{name}").remove()


def _bytes_below(path: Path) -> int:
    return sum(file.lstat().st_size for file in (path, *path.rglob("*")) if not file.is_dir())

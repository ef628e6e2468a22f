"""Care for the store: reads every byte against the manifests, and drops what no recipe needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.digest import digest_json
from artifacts.errors import StoreError
from artifacts.files.atomic import UNFINISHED, remove, remove_tree
from artifacts.plan.plan import Job, Plan, SourceJob
from artifacts.recipe.recipe import RESERVED, Source
from artifacts.run.lookup import Known, Lookup
from artifacts.sources.find import Found, is_resumable, local_source, partial_folder
from artifacts.sources.pins import pinned_digest
from artifacts.store.store import total_bytes

# Between two looks at a target that a build may be pointing elsewhere at this moment.
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Finding:
    """Result of reading a target: bytes read, damage if any and its fix, and whether it is a source without a pin."""

    target: str
    bytes: int
    damage: str | None = None
    fix: str = ""
    is_unlocked: bool = False


def verify(plan: Plan, words: list[str]) -> Iterator[Finding]:
    """Read every byte of what the targets are now, in the store and under `dist/`, look at what their paths show, and
    change nothing.

    What is remembered about files is forgotten first, and what is read is remembered: a run after this one finds the
    same damage, however well it was hidden, and repairs it.
    """
    there = Lookup(plan)
    there.store.memory.forget_all()
    for name in plan.selected(words):
        if there.pointer(name).is_known:
            yield _settled(there, plan.jobs[name])


def _settled(there: Lookup, job: Job | SourceJob) -> Finding:
    """Return a finding that two looks agree on: a build may point the target elsewhere meanwhile."""
    pointer = there.pointer(job.full_name)
    while True:
        before = pointer.state
        finding = _read_source(there, job) if isinstance(job, SourceJob) else _read_artifact(there, job)
        if finding.damage is None:
            return finding
        time.sleep(PAUSE_SECONDS)
        if pointer.state == before:
            return finding


def _read_source(there: Lookup, job: SourceJob) -> Finding:
    name, fix = job.full_name, f"doit {job.full_name}"
    source = job.loaded.recipe.sources[job.name]
    pin, pinned_by = pinned_digest(job.loaded, job.name)
    if source.is_local:
        try:
            found: Found | None = local_source(job.loaded, job.name, there.store.memory)
        except StoreError as error:
            return Finding(name, 0, error.fact, error.fix)
    else:
        found = there.source(job)
    if found is None and pin is not None:
        return Finding(name, 0, f"its download is missing, or is not what {pinned_by} pins", fix)
    size = total_bytes(found.manifest) if found else 0
    if pin is None:
        return Finding(name, size, is_unlocked=True)
    if found is not None and not there.pointer(name).notes(found.manifest):
        return Finding(name, size, f"'{there.pointer(name).manifest_file}' is not its manifest", fix)
    return Finding(name, size)


def _read_artifact(there: Lookup, job: Job) -> Finding:
    name, fix = job.full_name, f"doit {job.full_name}"
    pointer = there.pointer(name)
    action = there.store.action(pointer.key) if pointer.key else None
    if action is None:
        return Finding(name, 0, "the store has no record of it", fix)
    damage = there.store.damage(action.content)
    manifest = there.store.manifest(action.content)
    if damage is not None or manifest is None:
        return Finding(name, 0, damage or "its manifest is missing or damaged", fix)
    size = total_bytes(manifest)
    if pointer.link.is_dir() and not pointer.link.is_symlink():
        fix = f"move it away, then: doit {name}"
        return Finding(name, size, f"'{pointer.link}' is a folder where a link belongs", fix)
    if not pointer.shows(there.store.files(action.content), manifest):
        shown = pointer.link if pointer.notes(manifest) else pointer.manifest_file
        return Finding(name, size, f"'{shown}' does not show its artifact", fix)
    place = there.place_in_dist(job)
    if job.is_layout and not place.is_dir():
        return Finding(name, size, f"it is not laid out: no folder at '{place}'", fix)
    damage = there.store.difference(place, manifest) if job.is_layout else None
    return Finding(name, size, f"under '{place}', {damage}", fix) if damage is not None else Finding(name, size)


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
            doomed += sorted(
                set(there.downloads.glob("partial/*")) - {path for path in under_way if is_resumable(path)}
            )
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
    left += [*there.cache.glob("staging/*"), *there.cache.glob("*/.state/.*"), *there.dist.glob(f"*/.*{UNFINISHED}")]
    size = sum(_bytes_below(path) for path in left)
    for path in left:
        remove(path)
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

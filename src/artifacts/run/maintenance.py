"""Maintenance of the store: verify every byte, remove what no recipe needs, and clear what killed runs left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import StoreError
from artifacts.files.atomic import UNFINISHED, remove, remove_tree
from artifacts.plan.plan import Job, Plan
from artifacts.recipe.declarations import Source
from artifacts.recipe.pipeline import RESERVED
from artifacts.recipe.recipe import NamedSource
from artifacts.run.lookup import Lookup
from artifacts.sources.find import ResolvedSource, is_resumable, local_source, partial_folder
from artifacts.sources.pins import pinned_digest

# Between two checks of a target that a build may point elsewhere at this moment.
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class VerifyResult:
    """Result for one target: bytes read, damage in words with its fix, and whether it is a source without a pin."""

    target: str
    bytes: int
    damage: str | None = None
    fix: str = ""
    is_unpinned: bool = False


def verify(plan: Plan, words: list[str]) -> Iterator[VerifyResult]:
    """Read every byte of the targets' artifacts, in the store and under `dist/`, and check their paths. Change nothing.

    Remembered digests are dropped first, and the new ones are remembered. So the next run meets the same damage,
    however well it was hidden, and repairs it.
    """
    lookup = Lookup(plan)
    lookup.store.memory.forget_all()
    for name in plan.selected(words):
        job = plan.jobs[name]
        is_absent = isinstance(job, NamedSource) and job.absence is not None
        if lookup.link_of(name).exists and not is_absent:
            yield _verify_target(lookup, job)


def _verify_target(lookup: Lookup, job: Job | NamedSource) -> VerifyResult:
    """Verify a target again if its link changed meanwhile: a build may point it elsewhere."""
    link = lookup.link_of(job.full_name)
    while True:
        before = link.state
        result = _verify_source(lookup, job) if isinstance(job, NamedSource) else _verify_artifact(lookup, job)
        if result.damage is None:
            return result
        time.sleep(PAUSE_SECONDS)
        if link.state == before:
            return result


def _verify_source(lookup: Lookup, job: NamedSource) -> VerifyResult:
    name, fix = job.full_name, f"doit {job.full_name}"
    source = job.declared
    pin, pinned_by = pinned_digest(job)
    if source.is_local:
        try:
            resolved: ResolvedSource | None = local_source(job, lookup.store.memory)
        except StoreError as error:
            return VerifyResult(name, 0, error.fact, error.fix)
    else:
        resolved = lookup.source(job)
    if resolved is None and pin is not None:
        return VerifyResult(name, 0, f"its download is missing, or is not the file that {pinned_by} pins", fix)
    size = resolved.manifest.total_bytes if resolved else 0
    if pin is None:
        return VerifyResult(name, size, is_unpinned=True)
    if resolved is not None and not lookup.link_of(name).has_manifest(resolved.manifest):
        return VerifyResult(name, size, f"'{lookup.link_of(name).manifest_file}' is not its manifest", fix)
    return VerifyResult(name, size)


def _verify_artifact(lookup: Lookup, job: Job) -> VerifyResult:
    name, fix = job.full_name, f"doit {job.full_name}"
    link = lookup.link_of(name)
    action = lookup.store.action(link.key) if link.key else None
    if action is None:
        return VerifyResult(name, 0, "the store has no record of it", fix)
    damage = lookup.store.damage(action.content)
    manifest = lookup.store.manifest(action.content)
    if damage is not None or manifest is None:
        return VerifyResult(name, 0, damage or "its manifest is missing or damaged", fix)
    size = manifest.total_bytes
    if link.path.is_dir() and not link.path.is_symlink():
        fix = f"move it away, then: doit {name}"
        return VerifyResult(name, size, f"'{link.path}' is a folder where a link belongs", fix)
    if not link.shows(lookup.store.files(action.content), manifest):
        shown = link.path if link.has_manifest(manifest) else link.manifest_file
        return VerifyResult(name, size, f"'{shown}' does not show its artifact", fix)
    if not job.is_layout:
        return VerifyResult(name, size)
    folder = lookup.layout_folder(job)
    if not folder.is_dir():
        return VerifyResult(name, size, f"it is not laid out: no folder at '{folder}'", fix)
    difference = lookup.store.difference(folder, manifest)
    if difference is not None:
        return VerifyResult(name, size, f"under '{folder}', {difference}", fix)
    return VerifyResult(name, size)


@dataclass(frozen=True)
class GcResult:
    """Counts of removals: folders of artifacts and downloads, records of actions, and bytes."""

    folders: int
    actions: int
    bytes: int


def collect_garbage(plan: Plan) -> GcResult:
    """Remove what no recipe needs, and all leftovers of killed runs.

    An artifact is needed if a target shows it, or would have it by its recipe; a download if a source is pinned to it.
    Raises `StoreError` while a build runs.
    """
    lookup = Lookup(plan)
    with lookup.store.alone():
        keys, pins = _needed(lookup)
        contents = {action.content for key, action in lookup.store.actions() if key in keys}
        doomed = [lookup.store.folder(content) for content in lookup.store.contents() if content not in contents]
        if lookup.downloads.is_dir():
            doomed += [path for path in sorted(lookup.downloads.iterdir()) if path.name not in pins | {"partial"}]
            partial = {partial_folder(source, lookup.downloads) for source in _remote_sources(lookup.plan)}
            doomed += sorted(set(lookup.downloads.glob("partial/*")) - {path for path in partial if is_resumable(path)})
        size = sum(_bytes_below(path) for path in doomed)
        actions = [key for key, _ in lookup.store.actions() if key not in keys]
        for key in actions:
            lookup.store.forget(key)
        for path in doomed:
            remove_tree(path)
        size += _remove_leftovers(lookup)
        _remove_lost_links(lookup)
    return GcResult(len(doomed), len(actions), size)


def _needed(lookup: Lookup) -> tuple[set[str], set[str]]:
    """Return the keys of actions and the pins of downloads that the recipes need; damage does not matter here."""
    keys: set[str] = set()
    pins: set[str] = set()
    for name, job in lookup.plan.jobs.items():
        if isinstance(job, NamedSource):
            lookup.source(job)
            pin, _ = pinned_digest(job)
            pins |= {pin} if pin else set()
            continue
        shown = lookup.link_of(name).key
        keys |= {shown} if shown else set()
        identity = lookup.identity(job)
        if identity is not None:
            action = lookup.store.action(identity.key)
            keys.add(identity.key)
            if action is not None:
                lookup.resolve_to(name, action)
    return keys, pins


def _remote_sources(plan: Plan) -> Iterator[Source]:
    for job in plan.jobs.values():
        if isinstance(job, NamedSource) and not job.declared.is_local:
            yield job.declared


def clear_leftovers(lookup: Lookup) -> None:
    """Remove the staging folders and unfinished names that killed runs left in the store and in `dist/`.

    A build calls it at its end. Raises `StoreError` while another build runs, because they may be its own; OSError for
    a file that cannot be removed.
    """
    if _unfinished(lookup):
        with lookup.store.alone():
            for path in _unfinished(lookup):
                remove(path)


def _unfinished(lookup: Lookup) -> list[Path]:
    unfinished = f".*{UNFINISHED}"
    in_cache = [path for pattern in (unfinished, f".state/{unfinished}") for path in lookup.cache.glob(f"*/{pattern}")]
    return [*lookup.cache.glob("staging/*"), *in_cache, *lookup.dist.glob(f"*/{unfinished}")]


def _remove_leftovers(lookup: Lookup) -> int:
    """Remove what killed runs left in the store's folders and in `dist/`, and the locks. Return the bytes.

    The caller is alone in the store.
    """
    ours = [path for path in lookup.cache.glob("*") if path.name in RESERVED or (path / ".state").is_dir()]
    left = [path for folder in ours for path in folder.glob(".*") if path.name != ".state"]
    left += [*lookup.cache.glob("staging/*"), *lookup.cache.glob("*/.state/.*"), *lookup.dist.glob(f"*/.*{UNFINISHED}")]
    size = sum(_bytes_below(path) for path in left)
    for path in left:
        remove(path)
    for lock in lookup.cache.glob("locks/*"):
        lock.unlink()
    return size


def _remove_lost_links(lookup: Lookup) -> None:
    for path in lookup.cache.glob("*/.state/*.manifest.json"):
        name = path.name.removesuffix(".manifest.json")
        if f"{path.parent.parent.name}:{name}" not in lookup.plan.jobs:
            lookup.link_of(f"{path.parent.parent.name}:{name}").remove()


def _bytes_below(path: Path) -> int:
    return sum(file.lstat().st_size for file in (path, *path.rglob("*")) if not file.is_dir())

"""Reasons for a rebuild: each difference between two identities, with its location."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from artifacts.plan.plan import Job
from artifacts.plan.step_files import STEPS_PACKAGE, module_path
from artifacts.recipe.pipeline import CONSTRAINTS_FILE
from artifacts.store.journal import Entry
from artifacts.store.records import Identity

NEVER_BUILT = "it was never built"


class Change(NamedTuple):
    """Difference between two identities: the part, the key in that part, the old value and the new one."""

    part: str
    key: str
    old: Any
    new: Any


def reasons(job: Job, old: Identity, new: Identity) -> list[str]:
    """Return every difference between the identity of a target's last build and its identity now, in words.

    All changes of one module are one reason.
    """
    differences = list(changes(old, new))
    texts = [_reason(job, change) for change in differences if change.part != "code"]
    code = [change for change in differences if change.part == "code"]
    for module, group in itertools.groupby(code, key=lambda change: change.key.partition(":")[0]):
        texts.append(_code_reason(job, module, list(group)))
    return texts


def failed_try(entry: Entry, log: Path | None) -> str:
    """Return the sentence on a failed try of a target: when and why it failed, and the log of its step, if any."""
    fact = entry.error.removeprefix(f"{entry.target}: ")
    return f"last try {entry.local_time} failed: {fact}{f'; log: {log}' if log else ''}"


def _reason(job: Job, change: Change) -> str:
    old, new = _short(change.old), _short(change.new)
    if change.part == "params":
        label = f"{job.section}.{job.name}.params.{change.key}"
        written = ("params", change.key) if ("params", change.key) in _written(job) else ()
        note = " (the default)" if not written and change.key in job.params else ""
        return f"{job.location(*written)}: {label}: {old} -> {new}{note}"
    if change.part == "inputs":
        source = job.inputs.get(change.key)
        if change.old is None:
            return f"{job.location('inputs', change.key)}: input '{change.key}' is new: {source}"
        if change.new is None:
            return f"{job.location('inputs')}: input '{change.key}' was removed"
        return f"input '{change.key}': the content of {source} changed ({change.old[:12]} -> {change.new[:12]})"
    if change.part == "tools":
        return f"{CONSTRAINTS_FILE}: {change.key}: {old} -> {new}"
    if change.part == "step":
        return f"{job.location('step')}: step: {old} -> {new}"
    return f"the store's rules: {change.key}: {old} -> {new}"


def _code_reason(job: Job, module: str, group: list[Change]) -> str:
    owner = "its step" if module == f"{STEPS_PACKAGE}.{job.step}" else "code its step uses"
    texts = []
    for change in group:
        verb = "is new" if change.old is None else "was removed" if change.new is None else "changed"
        texts.append(f"{change.key.partition(':')[2]} {verb}")
    return f"{owner}: {module_path(module)}: {', '.join(texts)}"


def _written(job: Job) -> set[tuple[str, ...]]:
    return {("params", key) for key in (job.loaded.document.value[job.section][job.name].get("params") or {})}


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def changes(old: Identity, new: Identity) -> Iterator[Change]:
    """Yield every difference: the step first, then params, inputs, tools and code. An absent value is None."""
    for key in ("schema", "step"):
        if getattr(old, key) != getattr(new, key):
            yield Change(key, key, getattr(old, key), getattr(new, key))
    for part in ("params", "inputs", "tools"):
        yield from _differing(part, "", getattr(old, part), getattr(new, part))
    for module in sorted(set(old.code) | set(new.code)):
        yield from _differing("code", f"{module}:", old.code.get(module, {}), new.code.get(module, {}))


def _differing(part: str, prefix: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    for key in sorted(set(old) | set(new)):
        if old.get(key) != new.get(key) or (key in old) != (key in new):
            yield Change(part, prefix + key, old.get(key), new.get(key))

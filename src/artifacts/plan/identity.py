"""What decides an artifact's bytes, and how two such identities differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

# The store's own rules about bytes (what is hashed, how). A change here makes every earlier artifact another's.
SCHEMA = 1

Identity = dict[str, Any]


def identity_of(
    step: str, code: dict[str, dict[str, str]], params: dict[str, Any], tools: dict[str, str], inputs: dict[str, str]
) -> Identity:
    """The identity of one run of a step; `inputs` are content digests by the step's own names for them."""
    return {"schema": SCHEMA, "step": step, "code": code, "params": params, "tools": tools, "inputs": inputs}


class Change(NamedTuple):
    """One difference between two identities: which part of it, which key there, the old and the new value."""

    part: str
    key: str
    old: Any
    new: Any


def changes(old: Identity, new: Identity) -> Iterator[Change]:
    """Every difference, the step first, then parameters, inputs, tools and code. An absent value is None."""
    for key in ("schema", "step"):
        if old.get(key) != new[key]:
            yield Change(key, key, old.get(key), new[key])
    for part in ("params", "inputs", "tools"):
        yield from _differing(part, "", old.get(part, {}), new[part])
    for module in sorted(set(old.get("code", {})) | set(new["code"])):
        yield from _differing("code", f"{module}:", old.get("code", {}).get(module, {}), new["code"].get(module, {}))


def _differing(part: str, prefix: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    for key in sorted(set(old) | set(new)):
        if old.get(key) != new.get(key) or (key in old) != (key in new):
            yield Change(part, prefix + key, old.get(key), new.get(key))

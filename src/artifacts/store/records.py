"""Records of the store: identity of a step run, action (its result), manifest of an artifact."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from artifacts.digest import canonical_json, digest_json

# Version of the store's own rules about bytes (what is hashed, how). A change here changes every key.
SCHEMA = 1


@dataclass(frozen=True)
class Identity:
    """All that decides the bytes of an artifact: its sha256 is the key in the store.

    Step, digests of its code as {module: {definition: digest}}, params with defaults filled in, versions of its tools,
    and content digests of its inputs by the step's own names.
    """

    schema: int = field(default=SCHEMA, kw_only=True)
    step: str
    code: dict[str, dict[str, str]]
    params: dict[str, Any]
    tools: dict[str, str]
    inputs: dict[str, str]

    @cached_property
    def key(self) -> str:
        """The sha256 of the identity, as 64 hex digits."""
        return digest_json(_fields(self))


@dataclass(frozen=True)
class Action:
    """Record of one step run: identity, content, metrics, seconds, peak memory, processor."""

    identity: Identity
    content: str
    metrics: dict[str, float | int | str]
    seconds: float
    peak_bytes: int
    processor: str = ""  # unknown in a record that is older than this field

    @cached_property
    def text(self) -> bytes:
        """The bytes of `actions/<key>.json`: the action and its digest.

        The spelling is not canonical: metrics keep the order in which the step returns them.
        """
        action = {**_fields(self), "identity": _fields(self.identity)}
        return json.dumps({"action": action, "sha256": digest_json(action)}, allow_nan=False).encode()


def read_identity(record: Mapping[str, Any]) -> Identity:
    """Return the identity in a record of the store. Parts that another schema did not have are empty.

    Raises TypeError, AttributeError or KeyError for a record that contains none.
    """
    parts = {part: dict(record.get(part, {})) for part in ("code", "params", "tools", "inputs")}
    return Identity(schema=record.get("schema", 0), step=record["step"], **parts)


def read_action(text: bytes, key: str) -> Action | None:
    """Return the action in an `actions/<key>.json`; None if it is torn, altered, or of another key or version."""
    try:
        record = json.loads(text)
        found = record["action"]
        if digest_json(found) != record["sha256"] or digest_json(found["identity"]) != key:
            return None
        action = Action(**{**found, "identity": read_identity(found["identity"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return action if _has_right_types(action) else None


def _fields(record: Identity | Action | FileRecord) -> dict[str, Any]:
    """Return the fields by name. Their values are shared: `dataclasses.asdict` copies every digest of the code."""
    return {entry.name: getattr(record, entry.name) for entry in fields(record)}


def _has_right_types(action: Action) -> bool:
    numbers = (action.seconds, action.peak_bytes)
    return (
        is_sha256(action.content)
        and isinstance(action.processor, str)
        and all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)
        and isinstance(action.metrics, dict)
        and all(isinstance(value, (int, float, str)) for value in action.metrics.values())
    )


@dataclass(frozen=True)
class FileRecord:
    """Size and sha256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Name, size and sha256 of each file of an artifact, and nothing else.

    Names are relative to the artifact's folder, and sorted.
    """

    files: Mapping[str, FileRecord]

    @cached_property
    def text(self) -> bytes:
        """The bytes of manifest.json."""
        return canonical_json({"files": {name: _fields(file) for name, file in self.files.items()}})

    @cached_property
    def content(self) -> str:
        """The content digest: the sha256 of manifest.json, as 64 hex digits."""
        return hashlib.sha256(self.text).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files.values())


def manifest_of(files: Mapping[str, tuple[int, str]]) -> Manifest:
    """Return the manifest of files given as {name: (bytes, sha256)}."""
    return Manifest({name: FileRecord(size, digest) for name, (size, digest) in sorted(files.items())})


def read_manifest(text: bytes, content: str) -> Manifest | None:
    """Return the manifest in a manifest.json; None if its digest is not `content`, or a file in it is impossible."""
    if hashlib.sha256(text).hexdigest() != content:
        return None
    try:
        files = {name: FileRecord(file["bytes"], file["sha256"]) for name, file in json.loads(text)["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Manifest(files) if files and all(_is_possible(name, file) for name, file in files.items()) else None


def is_sha256(text: Any) -> bool:
    """Return whether a value is a text of 64 hex digits."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _is_possible(name: str, file: FileRecord) -> bool:
    """Return whether a manifest may list a file. A name that leads out of the folder would be read elsewhere."""
    inside = not {"", ".", ".."} & set(name.split("/")) and "\0" not in name
    return inside and isinstance(file.bytes, int) and file.bytes >= 0 and is_sha256(file.sha256)

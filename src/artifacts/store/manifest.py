"""Manifest of an artifact: name, size and sha256 of each of its files, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from artifacts.digest import canonical_json


@dataclass(frozen=True)
class FileRecord:
    """Size and sha256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Files of an artifact, by their names relative to its folder, in sorted order."""

    files: Mapping[str, FileRecord]

    @cached_property
    def text(self) -> bytes:
        """The bytes of manifest.json."""
        return canonical_json({"files": {name: asdict(file) for name, file in self.files.items()}})

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
    """Return the manifest in a manifest.json; None if its digest is not `content`, or for a file that cannot be."""
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

"""What is kept: finished artifacts by their content, and which identity gave which content.

```
cache/
  artifacts/<content>/files/…        read-only; <content> is the sha256 of manifest.json
  artifacts/<content>/manifest.json  {"files": {name: {"bytes", "sha256"}}}: nothing else
  actions/<key>.json                 the identity, the content it gave, metrics, seconds, peak memory, processor; and
                                     their digest
  staging/<key>.…/                   a step at work; never read, removed by the next who holds the key
  locks/<key>, guard                 held while a key is built, or the store used; released when the holder dies
  digests.sqlite                     digests of files not touched since
```

Two identities that give the same bytes share one artifact. Nothing is visible before it is whole: an artifact is
renamed into place after its bytes are on the disk, and its action is written after that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from artifacts.digest import DigestMemory, canonical_json, digest_json
from artifacts.errors import StoreError

Manifest = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Action:
    """Record of one step run: identity, content, metrics, seconds, peak memory, processor."""

    identity: dict[str, Any]
    content: str
    metrics: dict[str, float | int | str]
    seconds: float
    peak_bytes: int
    processor: str = ""  # unknown of a record that is older than this field


def manifest_of(files: dict[str, tuple[int, str]]) -> Manifest:
    """The manifest of files given as {name: (bytes, sha256)}."""
    return {"files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(files.items())}}


def content_of(manifest: Manifest) -> str:
    """The content digest of what a manifest lists."""
    return digest_json(manifest)


def total_bytes(manifest: Manifest) -> int:
    """How many bytes the files of a manifest have together."""
    return sum(file["bytes"] for file in manifest["files"].values())


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader sees the old bytes or all of the new ones, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def held(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file against every other thread and process; `waiting` is called once if another holds it now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a folder of read-only files, whoever else is about to look at it: first out of sight, then away."""
    if not folder.exists():
        return
    doomed = Path(tempfile.mkdtemp(prefix=".removed.", dir=folder.parent)) / folder.name
    folder.rename(doomed)
    shutil.rmtree(doomed.parent)


class Store:
    """The store below one cache folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.memory = DigestMemory(cache / "digests.sqlite")
        self._artifacts = cache / "artifacts"
        self._actions = cache / "actions"
        self._guard = cache / "guard"

    def lock(self, key: str, waiting: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
        """Hold a key against every other thread and process that would build it, as `held` does."""
        return held(self.cache / "locks" / key, waiting)

    def use(self) -> TextIO:
        """Keep `alone` from beginning until the returned file is closed, or its holder is dead."""
        self.cache.mkdir(parents=True, exist_ok=True)
        file = self._guard.open("w")
        fcntl.flock(file, fcntl.LOCK_SH)
        return file

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the whole store. Raises `StoreError` while anything uses it."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with self._guard.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"'{self.cache}' is in use by a build", "wait until it has ended") from None
            yield

    def stage(self, key: str) -> Path:
        """A new, empty staging folder. The caller holds the key's lock: what an earlier holder left is removed."""
        staging = self.cache / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        for left in staging.glob(f"{key}.*"):
            shutil.rmtree(left)
        return Path(tempfile.mkdtemp(prefix=f"{key}.", dir=staging))

    def folder(self, content: str) -> Path:
        """The folder of an artifact."""
        return self._artifacts / content

    def files(self, content: str) -> Path:
        """The folder that holds an artifact's files."""
        return self.folder(content) / "files"

    def action(self, key: str) -> Action | None:
        """What is known about a key, or None. A record that is torn, altered, or of another version is none."""
        try:
            record = json.loads((self._actions / f"{key}.json").read_bytes())
            return Action(**record["action"]) if digest_json(record["action"]) == record["sha256"] else None
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def actions(self) -> Iterator[tuple[str, Action]]:
        """Every recorded action with its key."""
        for path in sorted(self._actions.glob("*.json")):
            action = self.action(path.stem)
            if action is not None:
                yield path.stem, action

    def manifest(self, content: str) -> Manifest | None:
        """An artifact's manifest, or None if there is none or it is not the one that `content` names."""
        try:
            written = (self._artifacts / content / "manifest.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if hashlib.sha256(written).hexdigest() != content:
            return None
        manifest: Manifest = json.loads(written)
        return manifest

    def damage(self, content: str) -> str | None:
        """What is wrong with an artifact, or None. Files not touched since they were last hashed are not read again."""
        manifest = self.manifest(content)
        if manifest is None:
            return "its manifest is missing or damaged"
        return self.difference(self.files(content), manifest)

    def difference(self, folder: Path, manifest: Manifest) -> str | None:
        """How a folder differs from a manifest, in words, or None."""
        listed = manifest["files"]
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
        for name in sorted(found ^ set(listed)):
            return f"'{name}' is missing" if name in listed else f"'{name}' does not belong there"
        for name, file in listed.items():
            path = folder / name
            if path.is_symlink() or not path.is_file():
                return f"'{name}' is not a regular file"
            size = path.stat().st_size
            if size != file["bytes"]:
                return f"'{name}' has {size} bytes instead of {file['bytes']}"
            if self.memory.digest(path) != file["sha256"]:
                return f"'{name}' has other bytes than its manifest says"
        return None

    def seal(self, key: str, staging: Path, manifest: Manifest, action: Action) -> None:
        """Take in the finished files at `staging/files`, already hashed and on the disk, and record the action."""
        place = self._artifacts / action.content
        with self.lock(f"content.{action.content}"):  # another key may give the same bytes at the same time
            if self.damage(action.content) is not None:
                write_atomically(staging / "sealed" / "manifest.json", canonical_json(manifest))
                (staging / "files").rename(staging / "sealed" / "files")
                sync(staging / "sealed")
                self._artifacts.mkdir(parents=True, exist_ok=True)
                remove_tree(place)
                (staging / "sealed").rename(place)
                sync(self._artifacts)
                for name, file in manifest["files"].items():
                    self.memory.note(place / "files" / name, file["sha256"])
        record = {"action": asdict(action), "sha256": digest_json(asdict(action))}
        # Not in its canonical spelling: metrics keep the order in which the step tells them.
        write_atomically(self._actions / f"{key}.json", json.dumps(record, allow_nan=False).encode())

    def contents(self) -> list[str]:
        """The content digests of all artifacts there are."""
        return sorted(path.name for path in self._artifacts.glob("*") if not path.name.startswith("."))

    def forget(self, key: str) -> None:
        """Remove an action's record."""
        (self._actions / f"{key}.json").unlink(missing_ok=True)

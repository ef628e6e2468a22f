"""Store of finished artifacts by their content, with a record of the identity that gave each content.

```
cache/
  artifacts/<content>/files/…        read-only; <content> is the sha256 of manifest.json
  artifacts/<content>/manifest.json  {"files": {name: {"bytes", "sha256"}}}: nothing else
  actions/<key>.json                 identity, content, metrics, seconds, peak memory, processor; and their digest
  staging/<key>.…/                   folder of a running step; never read, removed by the next holder of the key
  locks/<key>, guard                 held while a key is built, or the store is used; released when the holder dies;
                                     the holder of a key removes its file
  digests.sqlite                     digests of files that were not touched since
```

Two identities that give the same bytes share one artifact. Nothing is visible before it is whole: an artifact is
renamed into place after its bytes are on the disk, and its action is written after that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from artifacts.errors import StoreError
from artifacts.files.atomic import remove, remove_tree, remove_unfinished, sync, write_atomically
from artifacts.files.locks import held, lock_file, open_lock
from artifacts.store.digest_memory import DigestMemory
from artifacts.store.records import Action, Manifest, is_sha256, read_action, read_manifest

# Error numbers for bytes that cannot be read from the disk, or that fail a checksum there.
ROTTEN = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)


class Store:
    """The store below one cache folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.memory = DigestMemory(cache / "digests.sqlite")
        self._artifacts = cache / "artifacts"
        self._actions = cache / "actions"
        self._guard = cache / "guard"

    def lock(self, key: str, waiting: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
        """Lock a key against every other thread and process that would build it, as `held` does."""
        return held(self.cache / "locks" / key, waiting)

    def use(self) -> IO[str]:
        """Keep `alone` from beginning until the returned file is closed, or its holder is dead."""
        file = open_lock(self._guard)
        lock_file(file, self.cache, fcntl.LOCK_SH)
        return file

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the whole store. Raises `StoreError` while a build uses it."""
        with open_lock(self._guard) as file:
            if not lock_file(file, self.cache, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise StoreError(f"'{self.cache}' is in use by a build", "wait for its end, then run again")
            yield

    def stage(self, key: str) -> Path:
        """Make an empty staging folder. The caller holds the key's lock: leftovers of an earlier holder are removed."""
        staging = self.cache / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self._record(key))
        for left in staging.glob(f"{key}.*"):
            remove(left)
        return Path(tempfile.mkdtemp(prefix=f"{key}.", dir=staging))

    def folder(self, content: str) -> Path:
        """Return the folder of an artifact."""
        return self._artifacts / content

    def files(self, content: str) -> Path:
        """Return the folder with an artifact's files."""
        return self.folder(content) / "files"

    def action(self, key: str) -> Action | None:
        """Return the record of a key; None if it is missing, torn, altered, or of another key or version."""
        text = _read(self._record(key)) if is_sha256(key) else None
        return read_action(text, key) if text is not None else None

    def actions(self) -> Iterator[tuple[str, Action]]:
        """Yield every recorded action with its key."""
        for path in sorted(self._actions.glob("*.json")):
            action = self.action(path.stem)
            if action is not None:
                yield path.stem, action

    def manifest(self, content: str) -> Manifest | None:
        """Return an artifact's manifest, or None if it is missing or is not the one that `content` names."""
        text = _read(self._artifacts / content / "manifest.json") if is_sha256(content) else None
        return read_manifest(text, content) if text is not None else None

    def damage(self, content: str, *, anew: bool = False) -> str | None:
        """Return the damage of an artifact in words, or None.

        Files that were not touched since they were last hashed are read again only with `anew`.
        """
        manifest = self.manifest(content)
        if manifest is None:
            return "its manifest is missing or damaged"
        return self.difference(self.files(content), manifest, anew=anew)

    def difference(self, folder: Path, manifest: Manifest, *, anew: bool = False) -> str | None:
        """Return how a folder differs from a manifest, in words, or None; `anew` as for `damage`.

        Before a file is reported, its bytes are read, because the remembered digest may be wrong.
        """
        listed = manifest.files
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
        for name in sorted(names ^ set(listed)):
            return f"'{name}' is missing" if name in listed else f"'{name}' does not belong there"
        for name, file in listed.items():
            path = folder / name
            if path.is_symlink() or not path.is_file():
                return f"'{name}' is not a regular file"
            size = path.stat().st_size
            if size != file.bytes:
                return f"'{name}' has {size} bytes instead of {file.bytes}"
            try:
                is_right = not anew and self.memory.digest(path) == file.sha256
                if not is_right and self.memory.digest_anew(path) != file.sha256:
                    return f"'{name}' has other bytes than its manifest says"
            except OSError as error:
                if error.errno not in ROTTEN:
                    raise
                return f"'{name}' cannot be read: {error.strerror}"
        return None

    def seal(self, key: str, staging: Path, manifest: Manifest, action: Action) -> None:
        """Move the files at `staging/files`, already hashed and on the disk, into the store, and record the action."""
        artifact = self.folder(action.content)
        with self.lock(f"content.{action.content}"):  # another key may give the same bytes at the same time
            # An artifact that is there already is read before it is used: the new files are certainly right.
            if self.damage(action.content, anew=True) is not None:
                sealed = staging / "sealed"
                remove(sealed)  # the step could write in this folder: a link would lead elsewhere
                sealed.mkdir()
                write_atomically(sealed / "manifest.json", manifest.text)
                (staging / "files").rename(sealed / "files")
                sync(sealed)
                self._artifacts.mkdir(parents=True, exist_ok=True)
                remove_tree(artifact)
                sealed.rename(artifact)
                sync(self._artifacts)
                for name, file in manifest.files.items():
                    self.memory.note(artifact / "files" / name, file.sha256)
        if self._record(key).is_dir():
            remove_tree(self._record(key))
        write_atomically(self._record(key), action.text)

    def contents(self) -> list[str]:
        """Return the content digests of all artifacts."""
        return sorted(path.name for path in self._artifacts.glob("*") if not path.name.startswith("."))

    def forget(self, key: str) -> None:
        """Remove an action's record."""
        self._record(key).unlink(missing_ok=True)

    def _record(self, key: str) -> Path:
        return self._actions / f"{key}.json"


def _read(path: Path) -> bytes | None:
    """Return the bytes of a small file of the store; None if it is not a regular file or cannot be read."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError as error:
        if error.errno not in ROTTEN:
            raise
        return None

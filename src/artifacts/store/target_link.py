"""The stable, readable path of each target, `cache/<recipe>/<target>/`, with its manifest and its key.

```
cache/<recipe>/<target>                         a link to the files of the target's artifact
cache/<recipe>/.state/<target>.manifest.json    that artifact's manifest, which doit watches
cache/<recipe>/.state/<target>.key              the key that it was built by
```
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import StoreError
from artifacts.files.atomic import remove_unfinished, unfinished_folder, write_atomically
from artifacts.store.records import Manifest

KEY_CHARACTERS = 64


@dataclass(frozen=True)
class TargetLink:
    """The paths of one target (or source) of one recipe."""

    cache: Path
    recipe: str
    name: str

    @property
    def path(self) -> Path:
        """Path of the link."""
        return self.cache / self.recipe / self.name

    @property
    def manifest_file(self) -> Path:
        """File with the manifest of the target's artifact."""
        return self.cache / self.recipe / ".state" / f"{self.name}.manifest.json"

    @property
    def key(self) -> str | None:
        """The key that the target was last built or restored by."""
        if not self._key_file.is_file():  # opening a named pipe would block
            return None
        with self._key_file.open("rb") as file:
            key = file.read(KEY_CHARACTERS + 1).decode("ascii", errors="replace")
        return key if key.isalnum() and len(key) <= KEY_CHARACTERS else None

    @property
    def exists(self) -> bool:
        """Whether the link, the manifest or the key exists."""
        return any(path.is_symlink() or path.exists() for path in (self.path, self.manifest_file, self._key_file))

    @property
    def state(self) -> tuple[str | bytes | None, ...]:
        """Contents of the link, the manifest and the key, for comparison."""
        link = os.fspath(self.path.readlink()) if self.path.is_symlink() else None
        return link, self.manifest_file.read_bytes() if self.manifest_file.is_file() else None, self.key

    @property
    def _key_file(self) -> Path:
        return self.manifest_file.with_name(f"{self.name}.key")

    def shows(self, files: Path, manifest: Manifest) -> bool:
        """Return whether the link leads to these files, and the manifest is theirs."""
        return self.has_manifest(manifest) and self.path.is_symlink() and self.path.readlink() == self._relative(files)

    def has_manifest(self, manifest: Manifest) -> bool:
        """Return whether the manifest that doit watches is this one."""
        return self.manifest_file.is_file() and self.manifest_file.read_bytes() == manifest.text

    def point(self, key: str, files: Path, manifest: Manifest) -> None:
        """Point the target at these files. A manifest that is right already is not written.

        The caller holds the target's lock: unfinished files of a killed run beside these paths are removed.
        """
        for path in (self.path, self.manifest_file, self._key_file):
            remove_unfinished(path)
        self.write_manifest(manifest)
        if not self.shows(files, manifest):
            if self.path.is_dir() and not self.path.is_symlink():
                raise StoreError(f"'{self.path}' is a folder where a link belongs", "move it away, then run again")
            # A link is made under another name and renamed, so that the path always shows a whole artifact.
            with unfinished_folder(self.path) as folder:
                link = folder / self.name
                link.symlink_to(self._relative(files), target_is_directory=True)
                link.replace(self.path)
        write_atomically(self._key_file, key.encode())

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, unless it is there; a source has no link. The caller holds the target's lock."""
        if not self.has_manifest(manifest):
            write_atomically(self.manifest_file, manifest.text)

    def remove(self) -> None:
        """Remove the target's link, manifest and key, but no artifact."""
        for path in (self.path, self.manifest_file, self._key_file):
            path.unlink(missing_ok=True)

    def _relative(self, files: Path) -> Path:
        return Path(os.path.relpath(files, self.path.parent))

"""Write `SHA256SUMS`, which `sha256sum -c` checks."""

from __future__ import annotations

from pathlib import Path

from artifacts.digest import digest_file

NAME = "SHA256SUMS"


def write_checksums(folder: Path) -> dict[str, int]:
    """Write `SHA256SUMS` of all files in a flat folder to it; return the numbers of `files` and `bytes` with it."""
    files = sorted(folder.iterdir())
    sums = "".join(f"{digest_file(path)}  {path.name}\n" for path in files)
    (folder / NAME).write_text(sums, encoding="ascii")
    return {"files": len(files) + 1, "bytes": sum(path.stat().st_size for path in folder.iterdir())}

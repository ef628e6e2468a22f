from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from artifacts.files.checksums import write_checksums


def test_the_list_is_one_that_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"b")
    (tmp_path / "a.txt").write_bytes(b"")
    metrics = write_checksums(tmp_path)
    names = [line.split("  ") for line in (tmp_path / "SHA256SUMS").read_text().splitlines()]
    assert names == [[hashlib.sha256(b"").hexdigest(), "a.txt"], [hashlib.sha256(b"b").hexdigest(), "b.bin"]]
    assert metrics == {"files": 3, "bytes": 1 + (tmp_path / "SHA256SUMS").stat().st_size}
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)
    (tmp_path / "b.bin").write_bytes(b"c")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True).returncode == 1

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.sandbox.landlock import landlock_version
from confined import tell_confined

needs_landlock = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")

LEAVE = """
from artifacts.sandbox.landlock import restrict_files
import subprocess
restrict_files([Path("/usr"), Path("/lib"), Path("/lib64"), Path("/bin"), Path("read"), Path("gone")], [Path("write")])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three folders: a readable one, a writable one, and one that is neither."""
    for name in ("read", "write", "neither"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path


@needs_landlock
def test_only_named_files_can_be_read(folder: Path) -> None:
    assert tell_confined(
        folder,
        LEAVE,
        "Path('read/file').read_text()",
        "Path('write/file').read_text()",
        "Path('neither/file').read_text()",
        "os.listdir('neither')",
        "os.listdir('read')",
    ) == ["read", "write", "PermissionError", "PermissionError", "['file']"]


@needs_landlock
def test_only_writable_files_can_be_written(folder: Path) -> None:
    said = tell_confined(
        folder,
        LEAVE,
        "Path('write/new').write_text('12')",
        "Path('write/new').rename('write/file')",
        "Path('read/new').write_text('12')",
        "Path('read/file').write_text('12')",
        "Path('read/file').unlink()",
        "Path('neither/file').rename('write/moved')",
        "os.link('read/file', 'write/linked')",
        "Path('neither/made').mkdir()",
        "os.mkfifo('neither/pipe')",
    )
    assert said[:2] == ["2", "write/file"]
    assert set(said[2:]) <= {"PermissionError", "OSError"}  # a move out of a folder is told as one across disks
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "neither", "neither/file", "read", "read/file", "write", "write/file",
    ]  # fmt: skip
    assert (folder / "read" / "file").read_text() == "read"


@needs_landlock
def test_programs_that_it_starts_are_confined_too(folder: Path) -> None:
    assert tell_confined(
        folder,
        LEAVE,
        "subprocess.run(['cat', 'neither/file'], capture_output=True).returncode",
        "subprocess.run(['cat', 'read/file'], capture_output=True).stdout",
    ) == ["1", "b'read'"]


def test_a_kernel_without_landlock_is_an_error(folder: Path) -> None:
    without = "from artifacts.sandbox import landlock\nlandlock.landlock_version = lambda: 0\n"
    assert tell_confined(folder, without, "landlock.restrict_files([], [])") == ["OSError"]

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.sandbox.landlock import landlock_version
from confined import tell_confined

CONFINE = """
from artifacts.sandbox import confine
{first}
kept = confine.confine([Path("inputs"), Path("model.bin")], Path("staging"))
"""
ATTEMPTS = (
    "(kept.files, kept.network)",
    "Path('staging/new').write_text('12')",
    "Path('inputs/file').read_text()",
    "Path('inputs/linked').read_text()",
    "Path('model.bin').read_text()",
    "Path('model.bin').write_text('12')",
    "Path('outside').write_text('12')",
    "socket.socket()",
    "Path('/dev/null').write_text('12')",
    "__import__('numpy').ones(3).sum()",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with inputs, one of them a link as download caches have them, and a staging folder."""
    for name in ("inputs", "staging", "blobs"):
        (tmp_path / name).mkdir()
    (tmp_path / "inputs" / "file").write_text("input")
    (tmp_path / "blobs" / "blob").write_text("blob")
    (tmp_path / "inputs" / "linked").symlink_to("../blobs/blob")
    (tmp_path / "model.bin").write_text("model")
    return tmp_path


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_a_step_reads_its_inputs_and_writes_its_staging_folder_alone(folder: Path) -> None:
    said = tell_confined(folder, CONFINE.format(first=""), *ATTEMPTS, "Path('blobs').rename('staging/blobs')")
    assert said == [
        "('Landlock', 'seccomp')", "2", "input", "blob", "model", "PermissionError", "PermissionError",
        "PermissionError", "2", "3.0", said[-1],
    ]  # fmt: skip
    assert said[-1] in ("PermissionError", "OSError")
    assert (folder / "blobs").is_dir()


def test_a_library_under_development_can_be_imported(folder: Path) -> None:
    (folder / "blobs" / "own.py").write_text("value = 5")
    first = """
import sys, types
finder = types.ModuleType("__editable___own_finder")
finder.MAPPING = {"own": str(Path("blobs").absolute())}
sys.modules[finder.__name__] = finder
"""
    said = tell_confined(folder, CONFINE.format(first=first), "Path('blobs/own.py').read_text()")
    assert said == ["value = 5"]


def test_without_landlock_namespaces_confine_it_where_they_are_allowed(folder: Path) -> None:
    first = "confine.landlock_version = lambda: 0"
    said = tell_confined(folder, CONFINE.format(first=first), *ATTEMPTS)
    if said[0] == "('', 'seccomp')":
        pytest.skip("this system forbids namespaces to this user")
    assert said == ["('namespaces', 'seccomp')", "2", "input", "blob", "model", "OSError", "OSError",
                    "PermissionError", "2", "3.0"]  # fmt: skip


def test_a_kernel_without_any_mechanism_is_reported(folder: Path) -> None:
    first = """
def missing(*_):
    raise OSError(38, "not here")
confine.landlock_version = lambda: 0
confine.restrict_view = confine.restrict_calls = missing
"""
    said = tell_confined(folder, CONFINE.format(first=first), *ATTEMPTS[:3])
    assert said == ["('', '')", "2", "input"]

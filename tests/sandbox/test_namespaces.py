from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from confined import tell_confined

VIEW = """
from artifacts.sandbox.namespaces import restrict_view
import subprocess
restrict_view([Path("home")], [Path("home/inputs"), Path("home/tool")], [Path("home/staging")])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a home in which inputs and staging lie beside a secret; namespaces must be allowed."""
    if subprocess.run(["unshare", "--user", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this system forbids namespaces to this user")
    for name in ("home/inputs", "home/staging", "home/private", "other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "home" / "tool").write_text("tool")
    return tmp_path


def test_a_home_is_empty_but_for_needed_files(folder: Path) -> None:
    assert tell_confined(
        folder,
        VIEW,
        "sorted(os.listdir('home'))",
        "Path('home/private/file').read_text()",
        "Path('home/inputs/file').read_text()",
        "Path('home/tool').read_text()",
    ) == ["['inputs', 'staging', 'tool']", "FileNotFoundError", "home/inputs", "tool"]


def test_only_the_folder_that_is_writable_can_be_written(folder: Path) -> None:
    said = tell_confined(
        folder,
        VIEW,
        "Path('home/staging/new').write_text('12')",
        "Path('home/inputs/file').write_text('12')",
        "Path('other/new').write_text('12')",
        "os.chmod('other/file', 0)",
        "Path('other/file').unlink()",
    )
    assert said == ["2", "OSError", "OSError", "OSError", "OSError"]
    assert (folder / "home/staging/new").read_text() == "12"
    assert (folder / "home/inputs/file").read_text() == "home/inputs"
    assert (folder / "other/file").read_text() == "other"


def test_there_is_no_network(folder: Path) -> None:
    assert tell_confined(
        folder, VIEW, "sorted(name for _, name in socket.if_nameindex())", "socket.create_connection(('127.0.0.1', 9))"
    ) == ["['lo']", "OSError"]

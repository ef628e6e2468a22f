from __future__ import annotations

import os
from pathlib import Path

import pytest

from confined import tell_confined

DROP = "from artifacts.sandbox.capabilities import drop_capabilities\nimport subprocess\ndrop_capabilities()\n"
EFFECTIVE = "[line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')]"


def test_at_most_files_of_other_owners_are_left(tmp_path: Path) -> None:
    [said] = tell_confined(tmp_path, DROP, EFFECTIVE)
    assert said in ("['0000000000000006']", "['0000000000000000']")


@pytest.mark.skipif(os.getuid() != 0, reason="only root has capabilities to give up")
def test_root_can_no_longer_mount_or_change_owners(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert tell_confined(
        tmp_path,
        DROP,
        "os.chown('file', 1, 1)",
        "subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '.'], capture_output=True).returncode != 0",
        "Path('file').read_text()",
    ) == ["PermissionError", "True", ""]

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from artifacts.sandbox.privileges import checked, libc
from confined import tell_confined


def test_the_error_of_a_call_is_an_exception_with_its_number() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        checked(libc().close(-1))
    assert caught.value.errno == errno.EBADF


def test_any_other_result_is_returned() -> None:
    assert checked(libc().getpid()) > 0


DROP = "from artifacts.sandbox.privileges import drop_capabilities\nimport subprocess\ndrop_capabilities()\n"
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

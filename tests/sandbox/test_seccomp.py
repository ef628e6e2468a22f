from __future__ import annotations

import os
from pathlib import Path

from confined import tell_confined

FILTER = (
    "from artifacts.sandbox.seccomp import restrict_calls\nimport ctypes, subprocess, threading\nrestrict_calls()\n"
)


def test_no_socket_can_be_opened(tmp_path: Path) -> None:
    said = tell_confined(
        tmp_path,
        FILTER,
        "socket.socket()",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK)",
        "subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], capture_output=True).returncode",
    )
    assert said == ["PermissionError"] * 4 + ["1"]


def test_two_ends_of_one_process_can_be_opened(tmp_path: Path) -> None:
    assert tell_confined(tmp_path, FILTER, "[end.send(b'12') for end in socket.socketpair()]") == ["[2, 2]"]


def test_modes_and_times_are_left_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o640)
    file.chmod(0o640)
    os.utime(file, (1000, 1000))
    said = tell_confined(
        tmp_path,
        FILTER,
        "os.chmod('file', 0o777)",
        "os.utime('file', (5, 5))",
        "os.chown('file', 1, 1)",
        "os.setxattr('file', 'user.x', b'1')",
        "os.truncate('file', 5)",
    )
    assert said == ["None", "None", "None", "OSError", "PermissionError"]
    found = file.stat()
    assert (found.st_mode & 0o777, found.st_mtime, found.st_uid, found.st_size) == (0o640, 1000, os.getuid(), 0)


def test_no_process_leaves_its_session_or_looks_into_another(tmp_path: Path) -> None:
    said = tell_confined(
        tmp_path,
        FILTER,
        "os.setsid()",
        "os.setpgid(0, 0)",
        "ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), None, None)",
        "ctypes.CDLL(None, use_errno=True).syscall(425, 8, None)",
    )
    assert said == ["PermissionError", "PermissionError", "-1", "-1"]


def test_threads_programs_and_files_work_as_before(tmp_path: Path) -> None:
    assert tell_confined(
        tmp_path,
        FILTER,
        "subprocess.run(['true']).returncode",
        "Path('new').write_text('12')",
        "[thread.start() or thread.join() for thread in [threading.Thread(target=int)]]",
    ) == ["0", "2", "[None]"]

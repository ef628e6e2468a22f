from __future__ import annotations

import os
import socket
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


def test_no_end_of_a_pair_can_send_to_another_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log, socket.socket(socket.AF_UNIX) as server:
        log.bind(str(tmp_path / "log"))
        server.bind(str(tmp_path / "server"))
        server.listen()
        said = tell_confined(
            tmp_path,
            FILTER,
            "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'12', 'log')",
            "socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW | socket.SOCK_NONBLOCK)[0].sendto(b'12', 'log')",
            "socket.socketpair()[0].connect('server')",
            "socket.socketpair()[0].sendto(b'12', 'server')",
        )
    assert said[:2] == ["PermissionError"] * 2
    assert set(said[2:]) == {"OSError"}


def test_neither_limits_nor_memory_of_other_processes_are_reached(tmp_path: Path) -> None:
    said = tell_confined(
        tmp_path,
        FILTER + "import resource\n",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "ctypes.CDLL(None, use_errno=True).shmget(0, 4096, 0o1600)",
        "ctypes.CDLL(None, use_errno=True).msgget(0, 0o1600)",
        "ctypes.CDLL(None, use_errno=True).semget(0, 1, 0o1600)",
    )
    assert said == ["PermissionError", "None", "-1", "-1", "-1"]


def test_modes_and_owners_are_left_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o640)
    file.chmod(0o640)
    said = tell_confined(
        tmp_path,
        FILTER,
        "os.chmod('file', 0o777)",
        "Path('new').touch() or Path('new').exists()",
        "os.chown('file', 1, 1)",
        "os.setxattr('file', 'user.x', b'1')",
        "os.truncate('file', 5)",
    )
    assert said == ["None", "True", "None", "OSError", "PermissionError"]
    found = file.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_size) == (0o640, os.getuid(), 0)


def test_no_process_leaves_its_session_or_looks_into_another(tmp_path: Path) -> None:
    said = tell_confined(
        tmp_path,
        FILTER,
        "os.setsid()",
        "os.setpgid(0, 0)",
        "ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), None, None)",
        "ctypes.CDLL(None, use_errno=True).syscall(425, 8, None)",
        "ctypes.CDLL(None, use_errno=True).unshare(0x10000000)",
        "os.setpriority(os.PRIO_PROCESS, 0, 5)",
    )
    assert said == ["PermissionError", "PermissionError", "-1", "-1", "-1", "PermissionError"]


def test_threads_programs_and_files_work_as_before(tmp_path: Path) -> None:
    assert tell_confined(
        tmp_path,
        FILTER,
        "subprocess.run(['true']).returncode",
        "Path('new').write_text('12')",
        "[thread.start() or thread.join() for thread in [threading.Thread(target=int)]]",
    ) == ["0", "2", "[None]"]
